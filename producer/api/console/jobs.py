"""Jobs: the list, one of them, and all decisions of a request, one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from producer.api.console.entry import ConsoleRoute, Looker, back
from producer.api.console.page import Visitor, page
from producer.api.problems import Problem
from producer.client import Producer
from producer.errors import InvalidRequest, SurefootError
from producer.ledger.glance import Outlined
from producer.ledger.reads import JobRecord
from producer.ledger.states import CLOSED, LEASED, State
from producer.trace import trace_id_of

LIVE_SECONDS = 2
LIST_LIVE_SECONDS = 5
PAGE = 50
# What is shown of a request before and after one of its decisions.
NEIGHBOURS = 4

router = APIRouter(prefix="/console", route_class=ConsoleRoute, include_in_schema=False)


@router.get("/jobs")
def jobs(
    request: Request,
    visitor: Looker,
    state: str = "",
    action: str = "",
    cursor: Annotated[UUID | None, Query()] = None,
) -> Response:
    """List jobs, the newest first."""
    wanted = State(state) if state in set(State) else None
    producer = visitor.caller.producer
    found = producer.jobs(state=wanted, action=action.strip() or None, limit=PAGE, before=cursor)
    return page(
        request,
        visitor,
        "jobs.html",
        title="Jobs",
        live_seconds=0 if cursor else LIST_LIVE_SECONDS,
        jobs=[job.record for job in found],
        states=list(State),
        state=wanted or "",
        action=action.strip(),
        actions=sorted(producer.actions()),
        next=found[-1].id if len(found) == PAGE else None,
        cursor=cursor,
    )


@router.get("/find")
def find(visitor: Looker, q: str = "") -> Response:
    """Go to what somebody has a name of: a job's id, a request, a conversation, or ``action key``."""
    said, producer = q.strip(), visitor.caller.producer
    if not said:
        return back("/jobs")
    for look in (_find_job, _find_request, _find_conversation, _find_key):
        found = look(producer, said)
        if found is not None:
            return found
    raise Problem("not-found", "no job, request or conversation has that name; for a key, write the action before it")


@router.get("/jobs/{job_id}")
def job(request: Request, visitor: Looker, job_id: UUID, done: str = "") -> Response:
    """Show one job: how it stands and why, what to do about it, and its history."""
    producer = visitor.caller.producer
    found = producer.job(job_id)
    record, told = found.record, producer.explain(job_id)
    outline = producer.outline(record.request_id)
    return page(
        request,
        visitor,
        "job.html",
        title=f"{record.action} {record.state.replace('_', ' ')}",
        live_seconds=0 if record.is_at_rest else LIVE_SECONDS,
        job=record,
        told=told,
        began=next((line.at for line in told.lines if line.at is not None), record.accepted_at),
        approvals=producer.approvals.of_job(job_id),
        trace_id=trace_id_of(record.traceparent),
        around=_around(outline, record.id),
        decisions=len(outline),
        done=done,
        may_cancel=visitor.may("operate") and record.state not in CLOSED | {State.IN_DOUBT},
        may_retry=visitor.may("operate") and record.state is State.DEAD,
        may_resolve=visitor.may("operate") and record.state is State.IN_DOUBT,
        undone_by=_undone_by(visitor, record),
        needs=_needs(visitor, record),
    )


@router.get("/chain")
def chain(request: Request, visitor: Looker, request_id: Annotated[str, Query(alias="request")]) -> Response:
    """Show every decision of a request, from the first to the last."""
    found = visitor.caller.producer.chain(request_id)
    if not found:
        raise Problem("not-found", "no decision was made for that request")
    costs = [record.cost_usd for record in found if record.cost_usd is not None]
    is_going_on = any(not record.is_at_rest for record in found)
    return page(
        request,
        visitor,
        "chain.html",
        title=f"Request {request_id}",
        live_seconds=LIST_LIVE_SECONDS if is_going_on else 0,
        request_id=request_id,
        jobs=found,
        places={record.id: number for number, record in enumerate(found, 1)},
        began=found[0].accepted_at,
        lasted=_lasted(found),
        is_going_on=is_going_on,
        states=_counted(found),
        cost=sum(costs, Decimal(0)) if costs else None,
        tokens=sum((record.tokens_in or 0) + (record.tokens_out or 0) for record in found),
    )


def _around(outline: Sequence[Outlined], job_id: UUID) -> list[tuple[int, Outlined]]:
    """Return the decisions before and after one of a request, with their numbers."""
    here = next((place for place, each in enumerate(outline) if each.id == job_id), None)
    if here is None or len(outline) == 1:
        return []
    first = max(0, min(here - NEIGHBOURS, len(outline) - 2 * NEIGHBOURS - 1))
    return [(n, each) for n, each in enumerate(outline, 1) if first < n <= first + 2 * NEIGHBOURS + 1]


def _undone_by(visitor: Visitor, record: JobRecord) -> str:
    """Return the action that takes the job back, for somebody who may ask for it; empty where there is none."""
    if record.state is not State.SUCCEEDED or not visitor.may("operate"):
        return ""
    published = visitor.caller.producer.actions().get(record.action)
    return str((published.policy.get("undo") if published else None) or "")


def _needs(visitor: Visitor, record: JobRecord) -> str:
    """Return the scope that somebody would need to do something about it, and has not; empty where there is none."""
    waits_for_somebody = record.state in (State.DEAD, State.IN_DOUBT) or record.state in LEASED
    return "" if visitor.may("operate") or not waits_for_somebody else "operate"


def _lasted(records: Sequence[JobRecord]) -> float:
    """Return the seconds from the first accept to the last end that is known."""
    ends = [record.finished_at or record.accepted_at for record in records]
    return (max(ends) - records[0].accepted_at).total_seconds()


def _counted(records: Sequence[JobRecord]) -> dict[State, int]:
    counts: dict[State, int] = {}
    for record in records:
        counts[record.state] = counts.get(record.state, 0) + 1
    return counts


def _find_job(producer: Producer, said: str) -> Response | None:
    try:
        return back(f"/jobs/{producer.job(said).id}")
    except SurefootError:
        return None


def _find_request(producer: Producer, said: str) -> Response | None:
    try:
        return back("/chain", request=said) if producer.outline(said) else None
    except InvalidRequest:
        return None


def _find_conversation(producer: Producer, said: str) -> Response | None:
    try:
        producer.conversation(said, limit=1)
    except SurefootError:
        return None
    return back("/conversation", id=said)


def _find_key(producer: Producer, said: str) -> Response | None:
    action, _, key = said.partition(" ")
    try:
        found = producer.find(action, key.strip()) if key else None
    except InvalidRequest:
        return None
    return None if found is None else back(f"/jobs/{found.id}")

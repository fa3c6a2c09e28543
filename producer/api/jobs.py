"""Jobs over HTTP: asking for them, looking at them, waiting, and saying what is to become of one."""

from __future__ import annotations

import time
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from producer.api.access import Caller, Enqueuer, Operator, Reader
from producer.api.document import PROBLEMS
from producer.api.keys_in_headers import idempotency_key
from producer.api.problems import Problem
from producer.api.shapes import (
    Batch,
    BatchAnswer,
    BatchBody,
    CancelAnswer,
    CancelBody,
    EnqueueBody,
    Enqueued,
    History,
    JobPage,
    JobView,
    ResolveBody,
    RetryBody,
    UndoBody,
)
from producer.api.stopping import Stopping
from producer.api.strict import StrictRoute
from producer.envelope import Request as Asked
from producer.job import Job
from producer.ledger.states import State
from producer.trace import child_of, is_traceparent, new_traceparent

PAGE_LIMIT = 500
# How late a caller who has gone is noticed.
LOOK_SECONDS = 5.0
router = APIRouter(prefix="/v1", route_class=StrictRoute, responses=PROBLEMS, tags=["jobs"])

JobId = Annotated[UUID, Path(description="The job's id.")]
Wait = Annotated[float, Query(ge=0, allow_inf_nan=False, description="Seconds to wait for the job to come to rest.")]


@router.post("/jobs", status_code=202)
async def enqueue(
    body: EnqueueBody,
    caller: Enqueuer,
    request: Request,
    response: Response,
    key: Annotated[str | None, Header(alias="Idempotency-Key", description="1 to 255 visible characters.")] = None,
    derive_key: Annotated[bool, Query(description="Derive a key from the request and the UTC day.")] = False,  # noqa: FBT002
    wait: Wait = 0.0,
    traceparent: Annotated[str | None, Header(description="The trace that the job shall belong to.")] = None,
) -> Enqueued:
    """Have an action performed: answered once that is durable, and before it is performed.

    Safe to repeat with the same key: the answer is then the first one's job, with ``Idempotent-Replayed: true``.
    """
    trace = child_of(traceparent) if is_traceparent(traceparent) and traceparent else new_traceparent()
    asked = Asked(idempotency_key=idempotency_key(key, derive=derive_key), trace=trace, **body.model_dump())

    def accept() -> Job:
        return caller.producer.enqueue_many([asked])[0].refresh()

    job = await run_in_threadpool(accept)
    if wait:
        await _at_rest(request, caller, job, wait)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    response.headers["traceparent"] = job.record.traceparent
    if job.outcome == "replayed":
        response.headers["Idempotent-Replayed"] = "true"
    return Enqueued(outcome=job.outcome or "created", job=_view(job))


@router.post("/batches", status_code=202)
def enqueue_batch(body: BatchBody, caller: Enqueuer) -> Batch:
    """Have up to 10,000 actions performed, accepted in one transaction: all of them or, for a conflict, none."""
    asked = [Asked(**item.model_dump()) for item in body.requests]
    jobs = caller.producer.enqueue_many(asked, conflicts=body.conflicts)
    return Batch(
        jobs=[
            BatchAnswer(id=job.id, outcome=job.outcome or "created", conflict_paths=list(job.conflict_paths))
            for job in jobs
        ]
    )


@router.get("/jobs")
def jobs(
    caller: Reader,
    state: State | None = None,
    action: str | None = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT)] = 50,
    cursor: Annotated[UUID | None, Query(description="The `next` of the page before.")] = None,
) -> JobPage:
    """List jobs, the newest first."""
    found = caller.producer.jobs(state=state, action=action, limit=limit, before=cursor)
    return JobPage(jobs=[_view(job) for job in found], next=found[-1].id if len(found) == limit else None)


@router.get("/jobs/by-key")
def job_by_key(caller: Reader, action: str, idempotency_key: str) -> JobView:
    """Return the newest job that an idempotency key stands for."""
    job = caller.producer.find(action, idempotency_key)
    if job is None:
        raise Problem("not-found", "no job of that action has that key")
    return _view(job)


@router.get("/jobs/{job_id}")
async def job(job_id: JobId, caller: Reader, request: Request, wait: Wait = 0.0) -> JobView:
    """Return a job; with `wait`, once it is at rest, or after so many seconds as it stands then."""
    found = await run_in_threadpool(caller.producer.job, job_id)
    if wait:
        await _at_rest(request, caller, found, wait)
    return _view(found)


@router.get("/jobs/{job_id}/events")
def events(job_id: JobId, caller: Reader) -> History:
    """Return a job's history, in order."""
    return History(events=caller.producer.job(job_id).events)


@router.post("/jobs/{job_id}/cancel")
def cancel(job_id: JobId, body: CancelBody, caller: Operator) -> CancelAnswer:
    """Cancel a job, or ask the worker that has it to; asking again gets the same answer."""
    found = caller.producer.job(job_id)
    return CancelAnswer(answer=found.cancel(body.reason), job=_view(found))


@router.post("/jobs/{job_id}/retry")
def retry(job_id: JobId, body: RetryBody, caller: Operator) -> JobView:
    """Give a dead job one more attempt."""
    return _view(caller.producer.retry(job_id, reason=body.reason, who=caller.who))


@router.post("/jobs/{job_id}/resolve")
def resolve(job_id: JobId, body: ResolveBody, caller: Operator) -> JobView:
    """Say what became of a job in doubt."""
    verdict, reason = body.verdict, body.reason
    return _view(caller.producer.resolve(job_id, verdict, reason=reason, result=body.result, who=caller.who))


@router.post("/jobs/{job_id}/undo", status_code=202)
def undo(job_id: JobId, body: UndoBody, caller: Operator) -> Enqueued:
    """Have what a job did taken back, by the action that its own declares for that: another job, through every gate."""
    made = caller.producer.undo(job_id, reason=body.reason, who=caller.who)
    return Enqueued(outcome=made.outcome or "created", job=_view(made.refresh()))


def _view(job: Job) -> JobView:
    return JobView.model_validate(job.record)


async def _at_rest(request: Request, caller: Caller, job: Job, seconds: float) -> None:
    """Wait until the job is at rest, for so long, or until the server stops; no thread waits with it."""
    stopping: Stopping = request.app.state.stopping
    until = time.monotonic() + min(seconds, request.app.state.settings.api_wait_seconds)
    while not job.record.is_at_rest and not stopping.begun and (left := until - time.monotonic()) > 0:
        with caller.producer.waiting.news_of(job.id) as news:
            await run_in_threadpool(job.refresh)  # what was news before it was listened for wakes nobody
            if job.record.is_at_rest:
                return
            await stopping.first_of(news, seconds=min(left, LOOK_SECONDS))
        if await request.is_disconnected():
            return
        await run_in_threadpool(job.refresh)

"""What waits for a person: seeing exactly what is asked for, and saying yes, no, never mind or rather this.

What is decided is the digest that the page showed: a form holds it, and one that another request has by now is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from producer.api.console.entry import Approving, ConsoleRoute, Form, Looker, Operating, back, read_form, text_of
from producer.api.console.page import Visitor, page
from producer.api.problems import Problem
from producer.approvals import Approvals
from producer.canonical import parse_json
from producer.client import Producer
from producer.ledger.approvals import Approval, ApprovalState
from producer.people import is_one_of
from producer.redact import redact

LIVE_SECONDS = 4
PAGE = 50
# The address is worth a word: no cache keeps it. It is told to nobody but this server, as any page's is.
NOBODYS = {"Cache-Control": "no-store"}

router = APIRouter(prefix="/console", route_class=ConsoleRoute, include_in_schema=False)


@router.get("/approvals")
def approvals(
    request: Request, visitor: Looker, state: str = "pending", cursor: Annotated[UUID | None, Query()] = None
) -> Response:
    """List what waits, or what became of it, the newest first."""
    wanted = ApprovalState(state) if state in set(ApprovalState) else None
    found = visitor.caller.producer.approvals.list(state=wanted, limit=PAGE, before=cursor)
    return page(
        request,
        visitor,
        "approvals.html",
        title="Approvals",
        live_seconds=0 if cursor else LIVE_SECONDS,
        approvals=found,
        states=list(ApprovalState),
        state=wanted or "",
        next=found[-1].id if len(found) == PAGE else None,
    )


@router.get("/approvals/{approval_id}")
def approval(request: Request, visitor: Looker, approval_id: UUID, done: str = "") -> Response:
    """Show one: what is asked for, what it would change, who may decide, and what was said."""
    found = visitor.caller.producer.approvals.get(approval_id)
    is_open = found.state is ApprovalState.PENDING
    refusal = _refusal(visitor, found) if is_open and visitor.may("approve") else ""
    return page(
        request,
        visitor,
        "approval.html",
        title=f"Approve {found.action}" if is_open else f"{found.action} {found.state}",
        live_seconds=LIVE_SECONDS if is_open else 0,
        approval=found,
        done=done,
        editable=_editable(found.params),
        refusal=refusal,
        may_decide=is_open and visitor.may("approve") and not refusal,
        may_edit=is_open and visitor.may("approve"),
        may_withdraw=is_open and visitor.may("operate"),
    )


@router.post("/approvals/{approval_id}/decide")
def decide(request: Request, approval_id: UUID, form: Form, visitor: Approving) -> Response:
    """Say yes or no."""
    verdict = form.get("verdict", "")
    _decide(visitor, approval_id, verdict, form, address=_address(request))
    return back(f"/approvals/{approval_id}", done=verdict)


@router.post("/approvals/{approval_id}/edit")
def edit(approval_id: UUID, form: Form, visitor: Approving) -> Response:
    """Ask for something else instead, and show that."""
    params = parse_json(text_of(form, "params").encode(), where="params")
    job_id = visitor.caller.producer.approvals.edit(
        approval_id,
        params,
        digest=form.get("digest", ""),
        by=visitor.caller.name,
        reason=text_of(form, "reason"),
    )
    return back(f"/jobs/{job_id}", done="edited")


@router.post("/approvals/{approval_id}/withdraw")
def withdraw(approval_id: UUID, form: Form, visitor: Operating) -> Response:
    """Take it back; its job is cancelled."""
    reason = text_of(form, "reason")
    visitor.caller.producer.approvals.withdraw(approval_id, by=visitor.caller.name, reason=reason)
    return back(f"/approvals/{approval_id}", done="withdraw")


@router.get("/link")
def link_page(request: Request, token: str) -> Response:
    """Show what a link is for. Looking decides nothing: mail programs open links by themselves."""
    found, verdict, person = _of_link(request).read_token(token)
    answer = page(
        request,
        None,
        "link.html",
        title=f"{verdict.capitalize()} {found.action}",
        approval=found,
        verdict=verdict,
        person=person,
        token=token,
    )
    answer.headers.update(NOBODYS)
    return answer


@router.post("/link")
def use_link(request: Request, said: Annotated[Mapping[str, str], Depends(read_form)]) -> Response:
    """Decide by a link, once. The token is all that it takes: whoever has it is the person that it was made for."""
    reason = said.get("reason", "").strip() or None
    found = _of_link(request).use_token(said.get("token", ""), reason=reason, address=_address(request))
    answer = page(request, None, "linked.html", title="Recorded", approval=found)
    answer.headers.update(NOBODYS)
    return answer


def _refusal(visitor: Visitor, approval: Approval) -> str:
    """Say why his word would be refused, before he gives reasons for it; empty where it would not be.

    Who decides is the ledger, once he says it: roles come and go.
    """
    name = visitor.caller.name
    if is_one_of(name, approval.excluded):
        return "You asked for this, or your agent did, or you changed it: somebody else has to decide."
    said = next((vote.verdict for vote in approval.votes if is_one_of(name, (vote.by,))), None)
    if said is not None:
        return f"You have said {said}; the others' word is missing."
    granted = visitor.caller.producer.roles.list() if approval.roles else ()
    deciding = [*approval.approvers, *(each.person for each in granted if each.role in approval.roles)]
    if (approval.approvers or approval.roles) and not is_one_of(name, deciding):
        return f"As {name} you are none of those who may decide this."
    return ""


def _of_link(request: Request) -> Approvals:
    producer: Producer = request.app.state.producer
    return producer.approvals


def _address(request: Request) -> str | None:
    return None if request.client is None else request.client.host


def _editable(params: Any) -> str:
    """Return params to be changed, as JSON; empty where a secret among them would come back as a word for one."""
    return json.dumps(params, indent=2) if redact(params) == params else ""


def _decide(visitor: Visitor, approval_id: UUID, verdict: str, form: Mapping[str, str], *, address: str | None) -> None:
    found = visitor.caller.producer.approvals
    says = {"approve": found.approve, "reject": found.reject}.get(verdict)
    if says is None:
        raise Problem("invalid-request", "say yes or no")
    says(
        approval_id,
        digest=form.get("digest", ""),
        by=visitor.caller.name,
        reason=text_of(form, "reason"),
        address=address,
    )

"""Approvals over HTTP: what waits for a person, and saying yes, no, never mind or rather this.

Who says so is the name of his key: whoever makes keys says who somebody is.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request

from producer.api.access import Admin, Approver, Operator, Reader
from producer.api.approval_shapes import (
    AheadBody,
    ApprovalPage,
    Approvals,
    ApprovalView,
    DecisionBody,
    Digest,
    EditBody,
    Replaced,
    Token,
    TokenBody,
    WithdrawBody,
)
from producer.api.document import PROBLEMS
from producer.api.jobs import PAGE_LIMIT, JobId
from producer.api.strict import StrictRoute
from producer.ledger.approvals import ApprovalState

router = APIRouter(prefix="/v1", route_class=StrictRoute, responses=PROBLEMS, tags=["approvals"])

ApprovalId = Annotated[UUID, Path(description="The approval's id.")]


@router.get("/approvals")
def approvals(
    caller: Reader,
    state: Annotated[ApprovalState | None, Query(description="By default those that wait; see also `every`.")] = None,
    every: Annotated[bool, Query(description="Whether those in any state are listed.")] = False,  # noqa: FBT002
    action: str | None = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT)] = 50,
    cursor: Annotated[UUID | None, Query(description="The `next` of the page before.")] = None,
) -> ApprovalPage:
    """List what people were asked, the newest first."""
    which = None if every else state or ApprovalState.PENDING
    found = caller.producer.approvals.list(state=which, action=action, limit=limit, before=cursor)
    views = [ApprovalView.model_validate(each) for each in found]
    return ApprovalPage(approvals=views, next=found[-1].id if len(found) == limit else None)


@router.get("/approvals/{approval_id}")
def approval(approval_id: ApprovalId, caller: Reader) -> ApprovalView:
    """Return one, with what was said of it."""
    return ApprovalView.model_validate(caller.producer.approvals.get(approval_id))


@router.post("/approvals/{approval_id}/approve")
def approve(approval_id: ApprovalId, body: DecisionBody, caller: Approver, request: Request) -> ApprovalView:
    """Say yes to exactly the request whose digest comes along."""
    decided = caller.producer.approvals.approve(
        approval_id, digest=body.digest, by=caller.name, reason=body.reason, address=_address(request)
    )
    return ApprovalView.model_validate(decided)


@router.post("/approvals/{approval_id}/reject")
def reject(approval_id: ApprovalId, body: DecisionBody, caller: Approver, request: Request) -> ApprovalView:
    """Say no, which is enough of it."""
    decided = caller.producer.approvals.reject(
        approval_id, digest=body.digest, by=caller.name, reason=body.reason, address=_address(request)
    )
    return ApprovalView.model_validate(decided)


@router.post("/approvals/{approval_id}/edit")
def edit(approval_id: ApprovalId, body: EditBody, caller: Approver) -> Replaced:
    """Ask for something else instead: another job, which goes through every gate, takes this one's place."""
    job_id = caller.producer.approvals.edit(
        approval_id, body.params, digest=body.digest, by=caller.name, reason=body.reason
    )
    return Replaced(job_id=job_id)


@router.post("/approvals/{approval_id}/withdraw")
def withdraw(approval_id: ApprovalId, body: WithdrawBody, caller: Operator) -> ApprovalView:
    """Take back what waits for people; its job is cancelled."""
    taken_back = caller.producer.approvals.withdraw(approval_id, by=caller.name, reason=body.reason)
    return ApprovalView.model_validate(taken_back)


@router.post("/approvals/{approval_id}/tokens")
def token(approval_id: ApprovalId, body: TokenBody, caller: Admin) -> Token:
    """Make a token by which one person says one thing, once. Whoever has it is that person, so it takes `admin`."""
    made = caller.producer.approvals.token(approval_id, body.verdict, person=body.person, seconds=body.seconds)
    return Token(token=made)


@router.get("/jobs/{job_id}/approvals")
def approvals_of_job(job_id: JobId, caller: Reader) -> Approvals:
    """Return what was asked of people for a job, the oldest first."""
    found = caller.producer.approvals.of_job(job_id)
    return Approvals(approvals=[ApprovalView.model_validate(each) for each in found])


@router.get("/jobs/{job_id}/digest")
def digest(job_id: JobId, caller: Reader) -> Digest:
    """Return the digest of a job's request as it is stored now."""
    return Digest(digest=caller.producer.approvals.digest_of(job_id))


@router.post("/jobs/{job_id}/decide-ahead")
def decide_ahead(job_id: JobId, body: AheadBody, caller: Approver, request: Request) -> Digest:
    """Say yes or no before anybody was asked; it counts once somebody is, if this person may decide then."""
    caller.producer.approvals.decide_ahead(
        job_id,
        body.verdict,
        digest=body.digest,
        by=caller.name,
        reason=body.reason,
        address=_address(request),
    )
    return Digest(digest=body.digest)


def _address(request: Request) -> str | None:
    return None if request.client is None else request.client.host

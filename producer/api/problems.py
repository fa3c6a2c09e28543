"""Errors as ``application/problem+json`` (RFC 9457), with types that stay.

A problem's type is a path of this API, at which it is explained. Its detail is ours: never a value of the request, nor
anything of the ledger that is somebody else's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from producer import errors
from producer.api.log import log

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2
SERVICE_UNAVAILABLE = 503
FAULTS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem.

    Attributes:
        title: The same for all of it.
        again: What to do about it.
    """

    status: int
    title: str
    again: str


KINDS: Mapping[str, Kind] = {
    "invalid-request": Kind(400, "The request cannot be accepted", "Correct what `where` names."),
    "idempotency-key-missing": Kind(400, "An idempotency key is missing", "Send it as the header Idempotency-Key."),
    "unknown-action": Kind(400, "No worker has published that action", "GET /v1/actions lists them."),
    "unauthenticated": Kind(401, "A key is missing or not valid", "Send Authorization: Bearer sf_…."),
    "forbidden": Kind(403, "The key may not do that", "Ask for a key with the scope that `scope` names."),
    "token-refused": Kind(403, "The link is not good, or not any more", "Ask for another one."),
    "approver-refused": Kind(403, "This person may not decide that", "Somebody else has to."),
    "not-found": Kind(404, "There is no such thing", "Look whether id and tenant are right."),
    "method-not-allowed": Kind(405, "That cannot be done here", "The header Allow says what can."),
    "key-in-flight": Kind(409, "That key is being accepted just now", "Ask again, with the same key."),
    "not-in-doubt": Kind(409, "The job is not in doubt", "Look how it stands."),
    "not-dead": Kind(409, "The job cannot be retried", "Look how it stands."),
    "not-undoable": Kind(409, "The job cannot be undone", "`why` says what is missing."),
    "schedule-exists": Kind(409, "A schedule of that name says something else", "Remove it, or choose another name."),
    "approval-closed": Kind(409, "The approval is decided, or its time is over", "Look how it stands."),
    "approval-mismatch": Kind(409, "That is not the request that is stored", "Look at it again, decide what you see."),
    "not-set-up": Kind(409, "That needs a setting that is missing here", "Ask whoever runs the API."),
    "too-large": Kind(413, "The body is too large", "Send less at once."),
    "not-json": Kind(415, "The body is not said to be JSON", "Send Content-Type: application/json."),
    "idempotency-conflict": Kind(422, "That key stands for another request", "Use another key for another request."),
    "too-many-requests": Kind(429, "Too many requests", "Wait for as long as Retry-After says."),
    "too-slow": Kind(408, "The request came too slowly", "Send it in one go."),
    "internal": Kind(500, "Something went wrong here", "It is in the log; asking again with the same key is safe."),
    "broker-unavailable": Kind(503, "Redis cannot be asked", "Ask again; nothing was done, or the same once more."),
    "ledger-unavailable": Kind(503, "The ledger cannot be reached", "Ask again: with the same key that is safe."),
}
_OF_ERRORS: tuple[tuple[type[Exception], str], ...] = (
    (errors.IdempotencyConflict, "idempotency-conflict"),
    (errors.KeyInFlight, "key-in-flight"),
    (errors.ScheduleExists, "schedule-exists"),
    (errors.UnknownAction, "unknown-action"),
    (errors.InvalidRequest, "invalid-request"),
    (errors.JobNotInDoubt, "not-in-doubt"),
    (errors.JobNotDead, "not-dead"),
    (errors.JobNotUndoable, "not-undoable"),
    (errors.SettingsError, "not-set-up"),
    (errors.TokenRefused, "token-refused"),
    (errors.ApprovalClosed, "approval-closed"),
    (errors.ApprovalMismatch, "approval-mismatch"),
    (errors.ApproverRefused, "approver-refused"),
    (errors.ApprovalNotFound, "not-found"),
    (errors.JobNotFound, "not-found"),
    (errors.ConversationNotFound, "not-found"),
    (errors.ScheduleNotFound, "not-found"),
    (errors.BreakerNotFound, "not-found"),
    (errors.BudgetNotFound, "not-found"),
    (errors.KeyNotFound, "not-found"),
    (errors.PolicyNotFound, "not-found"),
    (errors.BreakersUnavailable, "broker-unavailable"),
    (errors.LedgerUnavailable, "ledger-unavailable"),
)
_OF_STATUS = {404: "not-found", 405: "method-not-allowed", 413: "too-large", 415: "not-json"}


class Problem(HTTPException):
    """A problem of one of the kinds above."""

    def __init__(self, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        """Keep what the answer will say; `members` stand beside its detail."""
        super().__init__(KINDS[kind].status, detail, dict(headers or {}))
        self.kind, self.members = kind, members

    def answer(self) -> JSONResponse:
        """Return the response."""
        kind = KINDS[self.kind]
        body = {"type": f"/problems/{self.kind}", "title": kind.title, "status": kind.status, "detail": self.detail}
        return JSONResponse(body | self.members, kind.status, headers=self.headers, media_type=MEDIA_TYPE)


def of_error(error: errors.SurefootError) -> Problem:
    """Return what an error of ours is to a caller."""
    kind = next((kind for type_, kind in _OF_ERRORS if isinstance(error, type_)), "internal")
    if kind == "internal":
        log.error("api.failed", error_type=type(error).__name__, error=str(error))
        return Problem(kind, "the request could not be carried out")
    away, not_there = KINDS[kind].status == SERVICE_UNAVAILABLE, isinstance(error, errors.JobNotFound)
    retry = {"Retry-After": str(RETRY_SECONDS)} if away or kind == "key-in-flight" else {}
    # Where a server is, and why it does not answer, is for the log.
    detail = KINDS[kind].title if away else "this tenant has no such job" if not_there else str(error)
    if away:
        log.warning("api.server_away", kind=kind, error=str(error))
    return Problem(kind, detail, headers=retry, **_members(error))


def _members(error: errors.SurefootError) -> dict[str, Any]:
    told: dict[str, Any] = {}
    match error:
        case errors.InvalidRequest():
            told = {"where": error.where, "problem": error.problem, "index": error.index}
        case errors.UnknownAction():
            told = {"action": error.action, "known": list(error.known), "hint": error.hint, "index": error.index}
        case errors.IdempotencyConflict():
            told = {
                "conflicts": [
                    {
                        "index": each.index,
                        "action": each.action,
                        "idempotency_key": each.idempotency_key,
                        "job_id": None if each.job_id is None else str(each.job_id),
                        "paths": list(each.paths),
                    }
                    for each in error.conflicts
                ]
            }
        case errors.JobNotInDoubt() | errors.JobNotDead():
            told = {"job_id": str(error.job_id), "state": error.state}
        case errors.JobNotUndoable():
            told = {"job_id": str(error.job_id), "why": error.why}
        case errors.ApprovalClosed():
            standing = {"state": error.state, "decided_by": error.decided_by, "why": error.why}
            told = {"approval_id": str(error.approval_id)} | standing
        case errors.ApprovalMismatch():
            told = {"job_id": str(error.job_id), "altered": error.altered}
        case errors.ApproverRefused():
            told = {"person": error.person, "why": error.why}
        case errors.ScheduleExists():
            told = {"name": error.name, "fields": list(error.fields)}
    return told


async def answer_ours(_request: Request, error: Exception) -> JSONResponse:
    """Answer one of our errors."""
    assert isinstance(error, errors.SurefootError)  # noqa: S101  it is what the app registers this for
    return of_error(error).answer()


async def answer_http(_request: Request, error: Exception) -> JSONResponse:
    """Answer what the framework refused, and problems that were raised."""
    if isinstance(error, Problem):
        return error.answer()
    assert isinstance(error, HTTPException)  # noqa: S101  as above
    kind = _OF_STATUS.get(error.status_code, "invalid-request")
    return Problem(kind, KINDS[kind].title, headers=error.headers).answer()


async def answer_invalid(_request: Request, error: Exception) -> JSONResponse:
    """Answer a body, a query or a header that is not of its type: by place, never by value."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  as above
    faults = [(_place(fault["loc"]), str(fault["msg"])) for fault in error.errors()]
    where, problem = faults[0]
    listed = [{"where": each, "problem": found} for each, found in faults[:FAULTS_SHOWN]]
    return Problem("invalid-request", f"{where}: {problem}", where=where, problem=problem, faults=listed).answer()


async def answer_unforeseen(request: Request, error: Exception) -> JSONResponse:
    """Answer anything else, and have it in the log whole."""
    log.error("api.failed", path=request.scope.get("path", "")[:200], error_type=type(error).__name__, exc_info=error)
    return Problem("internal", KINDS["internal"].title).answer()


def _place(location: tuple[int | str, ...]) -> str:
    """Return where a fault is, as ``params.items[2].price``; the body itself has no name."""
    source, *steps = location
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")
    return path or str(source)

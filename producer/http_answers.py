"""What the HTTP API answers, as `Producer` would have it: values, and the errors that the API made its problems of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx

from producer import errors
from producer.errors import ApiUnavailable, InvalidRequest, JobNotFound
from producer.records import record_of

MEDIA_TYPE = "application/problem+json"
LONGEST_PAUSE_SECONDS = 5.0

_ERRORS: Mapping[str, Callable[[Mapping[str, Any]], errors.SurefootError]] = {
    "invalid-request": lambda p: InvalidRequest(str(p["where"]), str(p["problem"]), int(p.get("index", 0))),
    "idempotency-key-missing": lambda p: InvalidRequest("request", str(p["detail"])),
    "not-json": lambda p: InvalidRequest("request", str(p["detail"])),
    "too-large": lambda p: InvalidRequest("request", str(p["detail"])),
    "unknown-action": lambda p: errors.UnknownAction(p["action"], p["known"], p["hint"], p["index"]),
    "idempotency-conflict": lambda p: errors.IdempotencyConflict([_conflict(each) for each in p["conflicts"]]),
    "not-found": lambda p: JobNotFound(str(p["detail"])),
    "not-in-doubt": lambda p: errors.JobNotInDoubt(UUID(p["job_id"]), p["state"]),
    "not-dead": lambda p: errors.JobNotDead(UUID(p["job_id"]), p["state"]),
    "schedule-exists": lambda p: errors.ScheduleExists(p["name"], p["fields"]),
    "not-undoable": lambda p: errors.JobNotUndoable(UUID(p["job_id"]), p["why"]),
    "approval-closed": lambda p: errors.ApprovalClosed(p["approval_id"], p["state"], p["decided_by"], p["why"]),
    "approval-mismatch": lambda p: errors.ApprovalMismatch(p["job_id"], altered=p["altered"]),
    "approver-refused": lambda p: errors.ApproverRefused(p["person"], p["why"]),
    "not-set-up": lambda p: errors.SettingsError(str(p["detail"])),
    "unauthenticated": lambda p: errors.AccessRefused(str(p["detail"])),
    "forbidden": lambda p: errors.AccessRefused(str(p["detail"])),
}


def answer_of(response: httpx.Response) -> Any:
    told = _json_of(response, "application/json" if response.is_success else MEDIA_TYPE)
    if response.is_success:
        return told
    raise _error_of(told)


def _json_of(response: httpx.Response, kind: str) -> Any:
    """Return what an answer says; a page of a proxy in between is none of the API's."""
    if response.headers.get("content-type", "").partition(";")[0] == kind:
        with suppress(ValueError):
            return response.json()
    raise ApiUnavailable(f"whoever answers is not the API: {response.status_code}")


def _error_of(problem: Mapping[str, Any]) -> errors.SurefootError:
    """Return the error that the API made this problem of."""
    kind = str(problem.get("type", "")).rpartition("/")[2]
    make = _ERRORS.get(kind)
    if make is None:
        return ApiUnavailable(f"{problem.get('title')}: {problem.get('detail')}")
    return make(problem)


def _conflict(told: Mapping[str, Any]) -> errors.Conflict:
    return record_of(errors.Conflict, told, paths=tuple(told["paths"]))


def is_in_flight(response: httpx.Response) -> bool:
    conflict = response.status_code == httpx.codes.CONFLICT
    return conflict and _json_of(response, MEDIA_TYPE).get("type") == "/problems/key-in-flight"


def retry_after(response: httpx.Response) -> float | None:
    said = response.headers.get("retry-after", "")
    return min(float(said), LONGEST_PAUSE_SECONDS) if said.isdigit() else None

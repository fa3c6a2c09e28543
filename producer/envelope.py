"""What a request is, and what it must look like to be accepted.

`seal` turns a caller's `Request` into an `Envelope`: checked, with its key, its fingerprint and its text as the
ledger will store it. Pure but for the clock and the ids, which are passed in. Imports neither Celery nor SQLAlchemy.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal, TypeVar
from uuid import UUID

from producer.canonical import canonical_json, check_text, is_finite, shown
from producer.errors import InvalidRequest
from producer.trace import is_traceparent, new_traceparent

__all__ = ["Envelope", "OnClosed", "Request", "seal"]

KEY_LIMIT = 255
NAME_LIMIT = 255
REASONING_LIMIT = 1 << 16
BATCH_LIMIT = 10_000
# Postgres takes 2^28 bytes as one value of JSON. A character has up to four of them; all else of a batch, 7 KB a job.
BATCH_CHARACTERS = 1 << 25
PRIORITIES = range(10)
DEFAULT_PRIORITY = 5
YEARS = range(1970, 9999)  # Postgres reaches further than Python: a moment past its edge could never be read back

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_written = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # json.dumps makes one for each call

OnClosed = Literal["replay", "rerun_if_failed", "rerun"]
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a caller asks for.

    Attributes:
        action: Name of a published action, such as ``email.send``.
        params: The action's arguments by name; plain JSON values, or an object with pydantic's ``model_dump``.
        idempotency_key: 1 to 255 visible ASCII characters, unique per tenant and action. None derives one from
            the tenant, action, user, params and UTC date, so that the same wish within a day is one job.
        user_id: On whose behalf.
        request_id: Chains the decisions of one piece of work; None begins a chain of this job's own.
        agent_id: Who decided.
        input: What the decision was made from; any JSON.
        reasoning: Why it was made; up to 65,536 characters.
        trace: A W3C ``traceparent`` to continue; None continues this context's own, or begins one.
        run_at: Not before this moment; needs a time zone. None is now.
        deadline: Expires if it has not been performed by then; needs a time zone.
        priority: 0 (soonest) to 9 (last) among the jobs waiting in one queue.
        queue: The Celery queue; None is the action's own.
        on_closed: What a key that stands for an ended job does: ``replay`` its outcome, or accept the job anew
            (``rerun``; ``rerun_if_failed`` only where there is no result).
    """

    action: str
    params: Any = field(default_factory=dict)
    idempotency_key: str | None = None
    user_id: str | None = None
    request_id: str | None = None
    agent_id: str | None = None
    input: Any = None
    reasoning: str | None = None
    trace: str | None = None
    run_at: datetime | None = None
    deadline: datetime | None = None
    priority: int = DEFAULT_PRIORITY
    queue: str | None = None
    on_closed: OnClosed = "replay"


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A request as the ledger stores it; JSON fields are text, exactly as they will be read back; times are UTC."""

    id: UUID
    tenant: str
    action: str
    action_version: int
    idempotency_key: str
    key_derived: bool
    fingerprint: str  # SHA-256, hex
    params: str
    input: str | None
    reasoning: str | None
    user_id: str | None
    agent_id: str | None
    request_id: str
    traceparent: str
    queue: str
    priority: int
    run_at: datetime | None
    deadline: datetime | None
    on_closed: OnClosed
    parent_job_id: UUID | None
    conversation_id: str | None

    @property
    def characters(self) -> int:
        """How long that is of it which may be long."""
        return len(self.params) + len(self.input or "") + len(self.reasoning or "")


def seal(
    request: Request,
    *,
    tenant: str,
    version: int,
    queue: str,
    now: datetime,
    new_id: Callable[[], UUID],
    parent_job_id: UUID | None = None,
    conversation: str | None = None,
    may_be_late: bool = False,
) -> Envelope:
    """Check a request and fix everything about it that the ledger will hold.

    Args:
        request: What the caller asks for.
        tenant: Whose job it will be.
        version: Major version of the action, part of the fingerprint.
        queue: The action's own queue, taken where the request names none.
        now: The current time; its UTC date is part of a derived key.
        new_id: Makes the job's id, time-ordered.
        parent_job_id: The job whose action asks for this one.
        conversation: The parameter that names the conversation of which the job is a turn.
        may_be_late: Whether its deadline may be over: it may be one that was accepted in time and is sent again.

    Raises:
        InvalidRequest: If any field cannot be accepted.
    """
    params = plain_params(request.params)
    canonical = canonical_json(params, where="params")
    _check_fields(request)
    run_at, deadline = _checked_moments(request, None if may_be_late else now)
    key = request.idempotency_key
    job_id = new_id()
    return Envelope(
        id=job_id,
        tenant=tenant,
        action=request.action,
        action_version=version,
        idempotency_key=_checked_key(key) if key is not None else _derived_key(tenant, request, canonical, now),
        key_derived=key is None,
        fingerprint=hashlib.sha256(f"{version}\n{canonical}".encode()).hexdigest(),
        params=_written(params),
        input=None if request.input is None else checked_text(request.input, "input"),
        reasoning=request.reasoning,
        user_id=request.user_id,
        agent_id=request.agent_id,
        request_id=request.request_id or str(job_id),
        traceparent=request.trace or new_traceparent(),
        queue=request.queue or queue,
        priority=request.priority,
        run_at=run_at,
        deadline=deadline,
        on_closed=request.on_closed,
        parent_job_id=parent_job_id,
        conversation_id=None if conversation is None else conversation_in(params, conversation),
    )


def batch_of(requests: Iterable[R]) -> list[R]:
    """Return the requests of a batch; what brings them forth may have no end.

    Raises:
        InvalidRequest: If there are more than a batch may have.
    """
    batch = list(islice(requests, BATCH_LIMIT + 1))
    if len(batch) > BATCH_LIMIT:
        raise InvalidRequest("requests", f"are more than the {BATCH_LIMIT:,} of a batch; pass them in several")
    return batch


def plain_params(params: Any) -> dict[str, Any]:
    """Return params as a dictionary, those of a pydantic model as JSON has them.

    Raises:
        InvalidRequest: If they are neither.
    """
    if hasattr(params, "model_dump"):
        if not is_finite(params.model_dump()):
            raise InvalidRequest("params", "hold NaN or an infinity, which is not a JSON number; use null or text")
        params = params.model_dump(mode="json")
    if not isinstance(params, Mapping):
        raise InvalidRequest("params", f"must map parameter names to values, not be a {type(params).__name__}")
    return dict(params)


def _check_fields(request: Request) -> None:
    if request.action is None:
        raise InvalidRequest("action", "is missing")
    for name in ("action", "user_id", "request_id", "agent_id", "queue"):
        if (given := getattr(request, name)) is not None:
            check_name(name, given, NAME_LIMIT)
    check_name("reasoning", request.reasoning, REASONING_LIMIT, may_span_lines=True)
    if request.trace is not None and not is_traceparent(request.trace):
        raise InvalidRequest("trace", f"{shown(request.trace)} is not a W3C traceparent (00-<32 hex>-<16 hex>-<2 hex>)")
    if type(request.priority) is not int or request.priority not in PRIORITIES:
        raise InvalidRequest("priority", f"{shown(request.priority)} is not 0 (soonest) to 9 (last)")
    if request.on_closed not in ("replay", "rerun_if_failed", "rerun"):
        raise InvalidRequest("on_closed", f"{shown(request.on_closed)} is not replay, rerun_if_failed or rerun")


def check_name(name: str, text: object, limit: int, *, may_span_lines: bool = False) -> None:
    """Refuse what is no printable text of at most `limit` characters; None is no text, and passes."""
    if text is None:
        return
    if not isinstance(text, str):
        raise InvalidRequest(name, f"must be text, not {type(text).__name__}")
    if not may_span_lines and (not text or not text.isprintable()):
        raise InvalidRequest(name, f"{shown(text)} must be printable and not empty")
    if len(text) > limit:
        raise InvalidRequest(name, f"has {len(text):,} characters; the limit is {limit:,}")
    check_text(text, name)


def in_utc(name: str, moment: datetime | None) -> datetime | None:
    """Return a moment in UTC: Postgres reads no offset of sixteen hours, which Python and JSON may have.

    Raises:
        InvalidRequest: If it has no time zone, or is none that UTC has.
    """
    if moment is None:
        return None
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise InvalidRequest(name, f"{shown(moment)} must be a datetime with a time zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise InvalidRequest(name, f"{moment.isoformat()} is no moment in UTC") from error


def _checked_moments(request: Request, now: datetime | None) -> tuple[datetime | None, datetime | None]:
    run_at, deadline = _in_utc("run_at", request.run_at), _in_utc("deadline", request.deadline)
    if deadline is not None and any(moment is not None and deadline <= moment for moment in (now, run_at)):
        raise no_time_left(deadline)
    return run_at, deadline


def no_time_left(deadline: datetime, index: int = 0) -> InvalidRequest:
    """Return what a request is refused with whose deadline is over before it could be performed."""
    return InvalidRequest("deadline", f"{deadline.isoformat()} leaves no time to perform the action", index)


def _in_utc(name: str, moment: datetime | None) -> datetime | None:
    utc = in_utc(name, moment)
    if utc is not None and utc.year not in YEARS:
        raise InvalidRequest(name, f"{utc.isoformat()} is not between the years {YEARS[0]} and {YEARS[-1]}")
    return utc


def _checked_key(key: object) -> str:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise InvalidRequest(
            "idempotency_key", f"{shown(key)} must be 1 to {KEY_LIMIT} visible ASCII characters, without spaces"
        )
    return key


def _derived_key(tenant: str, request: Request, canonical: str, now: datetime) -> str:
    parts = (tenant, request.action, request.user_id, canonical, now.astimezone(UTC).date().isoformat())
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def conversation_in(params: Mapping[str, Any], name: str) -> str | None:
    """Return the conversation that the params name under `name`; None where they name none.

    Raises:
        InvalidRequest: If that is no printable text of 1 to 255 characters.
    """
    conversation_id = params.get(name)
    check_name(f"params.{name}", conversation_id, NAME_LIMIT)
    return conversation_id


def checked_text(value: Any, where: str) -> str:
    """Return a value as the JSON text that the ledger stores, or refuse it."""
    canonical_json(value, where=where)
    return _written(value)

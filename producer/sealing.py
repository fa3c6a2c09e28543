"""Sealing a request by what workers have published: the action is there, its queue is known, and the params fit."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

from producer.catalogue import Actions, find
from producer.envelope import Envelope, Request, seal
from producer.schema import check_params, fits_plainly


def seal_by(
    known: Actions,
    request: Request,
    *,
    tenant: str,
    queue: str,
    parent_job_id: UUID | None = None,
    may_be_late: bool = False,
) -> Envelope:
    """Check a request against the published actions, and seal it.

    Args:
        known: The published actions by name.
        request: What is asked for.
        tenant: Whose job it will be.
        queue: For an action that names none.
        parent_job_id: The job whose action asks; None where a producer does.
        may_be_late: Whether its deadline may be over; see `refuse_late`.

    Raises:
        InvalidRequest: If something of it cannot be accepted.
        UnknownAction: If nobody has published the action.
    """
    action = find(known, request.action)
    envelope = seal(
        request,
        tenant=tenant,
        version=action.version,
        queue=action.queue or queue,
        now=datetime.now(UTC),
        new_id=new_id,
        parent_job_id=parent_job_id,
        conversation=action.policy.get("conversation"),
        may_be_late=may_be_late,
    )
    if not fits_plainly(action, request.params):  # as what is stored would, then
        check_params(action, json.loads(envelope.params))
    return envelope


def new_id() -> UUID:
    """Return an id for a job, time-ordered."""
    from uuid_utils.compat import uuid7  # noqa: PLC0415  time-ordered, as the standard library's is from 3.14 on

    return uuid7()

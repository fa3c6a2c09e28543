"""What people did, in one shape: who, from where, why. Each act holds the hash of all before it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.acting import Actor
from producer.ledger.engine import transaction_on

T = TypeVar("T")

# All that is put on record, in the order in which a list of them is read.
WORDS = (
    *("cancel", "retry", "resolve", "undo", "erase"),
    *("approve", "reject", "approve ahead", "reject ahead", "edit", "withdraw"),
    *("breaker", "add budget", "set budget", "reset budget", "remove budget"),
    *("add schedule", "pause schedule", "resume schedule", "remove schedule"),
    *("create key", "revoke key", "grant role", "revoke role", "retire policy"),
)

# Acts are numbered without gaps, so each waits for the one before; whoever acts takes this after all other locks.
ACTS_LOCK = 0x5EEFAC7  # the number only has to be ours
LOCK = text("SELECT pg_advisory_xact_lock(:lock)")

# What the hash is taken of, of an act ``a``: as Postgres sends a row, with the types and lengths of its columns.
SENT = "record_send(ROW(a.n, a.at, a.tenant, a.act, a.target, a.job_id, a.who, a.via, a.reason, CAST(a.data AS text)))"
# What the first holds as the hash before it.
ACTS_NOTHING = b"\0" * 32
NOBODY_BEFORE = "decode(repeat('00', 32), 'hex')"
NOTE = text(f"""
WITH last AS (
  SELECT n, hash FROM acts ORDER BY n DESC LIMIT 1
), a AS (
  SELECT coalesce((SELECT n FROM last), 0) + 1 AS n, clock_timestamp() AS at, CAST(:tenant AS text) AS tenant,
    CAST(:act AS text) AS act, CAST(:target AS text) AS target, CAST(:job_id AS uuid) AS job_id,
    CAST(:who AS text) AS who, CAST(:via AS text) AS via, CAST(:reason AS text) AS reason, CAST(:data AS json) AS data
)
INSERT INTO acts (n, at, tenant, act, target, job_id, who, via, reason, data, hash)
SELECT a.*, sha256(coalesce((SELECT hash FROM last), {NOBODY_BEFORE}) || {SENT}) FROM a
""")
ACTS = text("""
SELECT n, at, tenant, act, target, job_id, who, via, reason, data FROM acts
WHERE tenant = :tenant AND at >= coalesce(CAST(:since AS timestamptz), '-infinity')
  AND (CAST(:before AS bigint) IS NULL OR (at, n) < (SELECT b.at, b.n FROM acts b WHERE b.n = :before))
  AND (CAST(:who AS text) IS NULL OR who = :who OR starts_with(who, :who || ' (key '))
  AND (CAST(:act AS text) IS NULL OR act = :act) AND (CAST(:job_id AS uuid) IS NULL OR job_id = :job_id)
ORDER BY at DESC, n DESC LIMIT :limit
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that a person did.

    Attributes:
        act: One of `WORDS`.
        target: What it was done to: a job's id, a breaker's name, a key's id, a schedule's name.
        who: Who did it.
        via: From where: see `producer.acting`.
        reason: Why; None where none was asked for.
        data: What else there is to say of it.
    """

    tenant: str
    act: str
    target: str
    who: str
    via: str
    reason: str | None = None
    job_id: UUID | None = None
    data: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActRecord(Act):
    """An act on record; `n` counts from 1 without gaps, over all tenants."""

    n: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """Which acts somebody looks for; None is any.

    Attributes:
        since: Those from then on.
        before: Those older than the one of this number.
        act: One of `WORDS`.
        who: Whose: the name in full, or without the key by which he came.
        job_id: Those done to this job.
    """

    since: datetime | None = None
    before: int | None = None
    act: str | None = None
    who: str | None = None
    job_id: UUID | None = None


def act_of(actor: Actor, tenant: str, act: str, target: str | UUID, *, reason: str | None = None, **data: Any) -> Act:
    """Return an act; of a job where `target` is an id."""
    return Act(
        tenant=tenant,
        act=act,
        target=str(target),
        job_id=target if isinstance(target, UUID) else None,
        who=actor.who,
        via=actor.via,
        reason=reason,
        data=data or None,
    )


def note_act(connection: Connection, act: Act) -> None:
    """Put an act on record, in the transaction that does it, last of all."""
    connection.execute(LOCK, {"lock": ACTS_LOCK})
    facts = {name: getattr(act, name) for name in Act.__dataclass_fields__}
    connection.execute(NOTE, facts | {"data": None if act.data is None else json.dumps(act.data, default=str)})


def on_record(connection: Connection, act: Act, work: Callable[[], T], *, did: Callable[[T], object] = bool) -> T:
    """Do what somebody wants, and put it on record, in one transaction; only the former where it came to nothing.

    Args:
        connection: In autocommit.
        act: What it is.
        work: Does it on that connection.
        did: Whether it came to something, by what `work` returned.
    """
    with transaction_on(connection):
        answer = work()
        if did(answer):
            note_act(connection, act)
    return answer


def acts_of(
    connection: Connection,
    tenant: str,
    *,
    sought: Sought,
    limit: int,
) -> list[ActRecord]:
    """Return what people of a tenant did, the newest first."""
    asked = {name: getattr(sought, name) for name in Sought.__dataclass_fields__}
    asked |= {"tenant": tenant, "limit": limit}
    return [ActRecord(**row) for row in connection.execute(ACTS, asked).mappings()]

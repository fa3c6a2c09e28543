"""Schedules in the ledger: adding, pausing and removing them by name, and what a worker needs to tick them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection, Row

from producer.declaration import Declaration
from producer.ledger.engine import WAKE_CHANNEL
from producer.ticks import Rule

DECLARE_LOCK = 0x5EEF5C8  # the number only has to be ours

# As a declaration has them, without the rule.
FIELDS = "action, params, missed, request_id, agent_id, user_id, reasoning, queue, priority"
RULE = "cron, every, zone"
WRITTEN = f"{FIELDS}, {RULE}, version, declared_in"
COLUMNS = f"""
  id, tenant, name, {FIELDS}, {RULE}, version, declared_by, declared_in, created_at, paused_at, paused_by, next_tick,
  last_tick, last_job_id, last_error
"""
DECLARED = """
SELECT * FROM json_to_recordset(CAST(:declared AS json)) AS d(
  id uuid, tenant text, name text, action text, params json, missed text, request_id text, agent_id text, user_id text,
  reasoning text, queue text, priority smallint, cron text, every bigint, zone text, version int, declared_by text,
  declared_in text, next_tick timestamptz)
"""
INSERT = f"""
INSERT INTO schedules (id, tenant, name, declared_by, {WRITTEN}, next_tick)
SELECT id, tenant, name, declared_by, {WRITTEN}, next_tick FROM ({DECLARED}) d ORDER BY name
"""

ADD = text(f"{INSERT} ON CONFLICT (tenant, name) DO NOTHING")

# The row as it is stands on the left; a person's, and a newer version's, is left alone. Ticks of another rule count
# from now; under the same one, those that are still to be made up for stay.
DECLARE = text(f"""
{INSERT}
ON CONFLICT (tenant, name) DO UPDATE SET ({WRITTEN}) = ROW({", ".join(f"excluded.{n}" for n in WRITTEN.split(", "))}),
  next_tick = CASE
    WHEN schedules.paused_by = 'code' OR schedules.every IS DISTINCT FROM excluded.every
      OR (schedules.cron, schedules.zone) IS DISTINCT FROM (excluded.cron, excluded.zone)
    THEN excluded.next_tick ELSE schedules.next_tick END,
  paused_at = CASE WHEN schedules.paused_by = 'person' THEN schedules.paused_at END,
  paused_by = CASE WHEN schedules.paused_by = 'person' THEN schedules.paused_by END
WHERE schedules.declared_by = 'code' AND schedules.version <= excluded.version
RETURNING name
""")
# What its module does not declare any more. A person's pause of it stays a person's.
WITHDRAW = text("""
UPDATE schedules SET declared_in = NULL, paused_at = coalesce(paused_at, clock_timestamp()),
  paused_by = coalesce(paused_by, 'code')
WHERE tenant = :tenant AND declared_by = 'code' AND declared_in = ANY(:modules) AND name <> ALL(:names)
RETURNING name
""")

BY_NAME = text(f"SELECT {COLUMNS} FROM schedules WHERE tenant = :tenant AND name = :name")
ALL = text(f"SELECT {COLUMNS} FROM schedules WHERE tenant = :tenant ORDER BY name")
NAMES = text("SELECT name FROM schedules WHERE tenant = :tenant ORDER BY name")
PAUSE = text("""
UPDATE schedules SET paused_at = CASE WHEN paused_by = 'person' THEN paused_at ELSE clock_timestamp() END,
  paused_by = 'person'
WHERE tenant = :tenant AND name = :name RETURNING id
""")
RESUME = text("""
UPDATE schedules SET paused_at = NULL, paused_by = NULL, next_tick = :next_tick
WHERE tenant = :tenant AND name = :name AND paused_at IS NOT NULL
""")
REMOVE = text("DELETE FROM schedules WHERE tenant = :tenant AND name = :name RETURNING id")
# A relay that sleeps until the next tick it knew of learns of this one.
WAKE = text("SELECT pg_notify(:channel, '')")

# `aside` are those that this worker cannot tick just now; they must not keep it awake.
NEXT = text("""
SELECT extract(epoch FROM next_tick - clock_timestamp()) FROM schedules
WHERE paused_at IS NULL AND id <> ALL(:aside) ORDER BY next_tick LIMIT 1
""")
# statement_timestamp(), for a condition that an index can answer; the moment that counts is read under the lock.
DUE = text(f"""
SELECT {COLUMNS}, clock_timestamp() AS now FROM schedules
WHERE paused_at IS NULL AND next_tick <= statement_timestamp() AND id <> ALL(:aside)
ORDER BY next_tick LIMIT :batch FOR UPDATE SKIP LOCKED
""")
ADVANCE = text("""
UPDATE schedules s SET next_tick = a.next_tick, last_tick = coalesce(a.last_tick, s.last_tick),
  last_job_id = coalesce(a.last_job_id, s.last_job_id), last_error = a.last_error
FROM unnest(CAST(:id AS uuid[]), CAST(:next_tick AS timestamptz[]), CAST(:last_tick AS timestamptz[]),
  CAST(:last_job_id AS uuid[]), CAST(:last_error AS text[])) AS a(id, next_tick, last_tick, last_job_id, last_error)
WHERE s.id = a.id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRecord(Declaration):
    """A schedule and how it stands.

    Attributes:
        declared_by: ``code`` | ``person``.
        declared_in: The module that declares it; None where a person added it, or no code declares it any more.
        paused_at: Since when it makes no jobs; None where it does.
        paused_by: ``person``, or ``code`` where its module does not declare it any more.
        next_tick: The first tick that no worker has looked for yet.
        last_tick: The last one that a job was made for.
        last_job_id: That job.
        last_error: Why the last tick made no job; None where it made one.
    """

    id: UUID
    tenant: str
    declared_by: Literal["code", "person"]
    declared_in: str | None
    created_at: datetime
    paused_at: datetime | None
    paused_by: Literal["code", "person"] | None
    next_tick: datetime
    last_tick: datetime | None
    last_job_id: UUID | None
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A declaration on its way into the ledger.

    Attributes:
        next_tick: Its first tick from now on.
    """

    declaration: Declaration
    id: UUID
    tenant: str
    declared_by: Literal["code", "person"]
    declared_in: str | None
    next_tick: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """How a schedule stands after a round: see `ScheduleRecord`. None leaves the last tick or job as it is."""

    id: UUID
    next_tick: datetime
    last_tick: datetime | None = None
    last_job_id: UUID | None = None
    last_error: str | None = None


def database_now(connection: Connection) -> datetime:
    """Return the database's time, the only one that decides anything."""
    return cast("datetime", connection.execute(text("SELECT clock_timestamp()")).scalar_one())


def add(connection: Connection, declared: Declared) -> bool:
    """Add a schedule; return whether there was none of that name."""
    added = connection.execute(ADD, {"declared": _as_rows([declared])}).rowcount == 1
    connection.execute(WAKE, {"channel": WAKE_CHANNEL})
    return added


def lock_declaring(connection: Connection) -> None:
    """Have workers that start at once publish one after the other, until this transaction ends.

    Each of two that withdraw what the other declares would wait for the other.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": DECLARE_LOCK})


def declare_all(connection: Connection, declared: Sequence[Declared]) -> list[str]:
    """Add or change the schedules that code declares; return the names of those that stand as declared now.

    The others are a person's, or a newer version's.
    """
    return list(connection.execute(DECLARE, {"declared": _as_rows(declared)}).scalars())


def withdraw(connection: Connection, tenant: str, *, modules: Iterable[str], names: Iterable[str]) -> list[str]:
    """Pause the schedules that these modules have declared once, unless they are named; return which."""
    asked = {"tenant": tenant, "modules": list(modules), "names": list(names)}
    return sorted(connection.execute(WITHDRAW, asked).scalars())


def schedule_by_name(connection: Connection, tenant: str, name: str) -> ScheduleRecord | None:
    """Read one schedule of this tenant."""
    row = connection.execute(BY_NAME, {"tenant": tenant, "name": name}).one_or_none()
    return None if row is None else record_of(row)


def schedules_of(connection: Connection, tenant: str) -> list[ScheduleRecord]:
    """Read every schedule of this tenant, by name."""
    return [record_of(row) for row in connection.execute(ALL, {"tenant": tenant})]


def names_of(connection: Connection, tenant: str) -> list[str]:
    """Read the names of this tenant's schedules."""
    return list(connection.execute(NAMES, {"tenant": tenant}).scalars())


def pause(connection: Connection, tenant: str, name: str) -> bool:
    """Have a schedule make no jobs, by a person's word; return whether there is one."""
    return connection.execute(PAUSE, {"tenant": tenant, "name": name}).rowcount == 1


def resume(connection: Connection, tenant: str, name: str, *, next_tick: datetime) -> bool:
    """Have a schedule that is paused go on at `next_tick`; return whether there is one."""
    asked = {"tenant": tenant, "name": name, "next_tick": next_tick}
    resumed = connection.execute(RESUME, asked).rowcount == 1
    connection.execute(WAKE, {"channel": WAKE_CHANNEL})
    return resumed


def remove(connection: Connection, tenant: str, name: str) -> bool:
    """Remove a schedule; its jobs stay. Returns whether there was one."""
    return connection.execute(REMOVE, {"tenant": tenant, "name": name}).rowcount == 1


def advance(connection: Connection, advances: Iterable[Advance]) -> None:
    """Write how schedules stand after a round, in the transaction that has locked them."""
    rows = list(advances)
    columns = {name: [getattr(row, name) for row in rows] for name in Advance.__dataclass_fields__}
    connection.execute(ADVANCE, columns)


def record_of(row: Row[Any]) -> ScheduleRecord:
    """Make a record of a row of `COLUMNS`."""
    values = {name: row._mapping[name] for name in ScheduleRecord.__dataclass_fields__ if name != "rule"}  # noqa: SLF001  documented
    return ScheduleRecord(**values, rule=Rule(row.cron, row.every, row.zone))


def _as_rows(declared: Iterable[Declared]) -> str:
    return json.dumps([_as_row(each) for each in declared], default=str, ensure_ascii=False)


def _as_row(declared: Declared) -> dict[str, Any]:
    declaration, rule = declared.declaration, declared.declaration.rule
    fields = {name: getattr(declaration, name) for name in Declaration.__dataclass_fields__ if name != "rule"}
    return fields | {
        "cron": rule.cron,
        "every": rule.every,
        "zone": rule.zone,
        "id": declared.id,
        "tenant": declared.tenant,
        "declared_by": declared.declared_by,
        "declared_in": declared.declared_in,
        "next_tick": declared.next_tick,
    }

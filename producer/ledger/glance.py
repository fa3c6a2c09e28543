"""What somebody sees who looks at one tenant's jobs from afar, and a request's decisions by their names alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.ledger.overview import Standing, standing
from producer.ledger.states import CLOSED, RINGABLE, WITHOUT_RESULT, State, in_sql

BEATS, BEAT_SECONDS = 60, 5
# Ids are made by producers' clocks, so rows are looked for from a little before the first moment that counts.
SKEW_SECONDS = 60
# The newest that a pulse is made of: a look at more would cost more than it tells.
PULSE_JOBS = 50_000
OLDEST_SHOWN = 5
OUTLINE_LIMIT = 1_000

# An id begins with the milliseconds at which it was made.
PULSE = text(f"""
SELECT floor(extract(epoch FROM clock_timestamp() - accepted_at) / {BEAT_SECONDS})::int AS beat,
  count(*) AS accepted,
  count(*) FILTER (WHERE state IN ({in_sql(CLOSED - WITHOUT_RESULT)})) AS well,
  count(*) FILTER (WHERE state IN ({in_sql((WITHOUT_RESULT - {State.CANCELLED}) | {State.IN_DOUBT})})) AS badly
FROM (
  SELECT accepted_at, state FROM jobs
  WHERE tenant = :tenant AND id >= CAST(rpad(lpad(to_hex(
    (extract(epoch FROM statement_timestamp()) * 1000)::bigint - {(BEATS * BEAT_SECONDS + SKEW_SECONDS) * 1000}
  ), 12, '0'), 32, '0') AS uuid)
  ORDER BY id DESC LIMIT {PULSE_JOBS}
) newest GROUP BY 1
""")
OLDEST_DUE = text(f"""
SELECT id, action, state, attempt, due_at, extract(epoch FROM clock_timestamp() - due_at) AS overdue
FROM jobs WHERE state IN ({in_sql(RINGABLE)}) AND tenant = :tenant AND due_at <= clock_timestamp()
ORDER BY due_at, id LIMIT {OLDEST_SHOWN}
""")
OUTLINE = text(f"""
SELECT j.id, j.action, j.state, j.accepted_at, d.parent_job_id
FROM decisions d JOIN jobs j ON j.id = d.job_id
WHERE d.request_id = :request_id AND j.tenant = :tenant ORDER BY d.decided_at, j.id LIMIT {OUTLINE_LIMIT}
""")


@dataclass(frozen=True, slots=True)
class Beat:
    """Some seconds of what was accepted, as it stands now.

    Attributes:
        accepted: In these seconds.
        well: Of those: succeeded, or degraded.
        badly: Of those: ended otherwise, cancelled ones left out, or in doubt.
    """

    accepted: int
    well: int
    badly: int


@dataclass(frozen=True, slots=True)
class Overdue:
    """A job that is due and that no worker has; `overdue` in seconds."""

    id: UUID
    action: str
    state: State
    attempt: int
    due_at: datetime
    overdue: float


@dataclass(frozen=True, slots=True)
class Glance:
    """How a tenant's jobs stand.

    Attributes:
        standing: How many stand where.
        pulse: Of the last five minutes, five seconds each, the oldest first.
        oldest: The jobs that are due for longest.
    """

    standing: Standing
    pulse: Sequence[Beat]
    oldest: Sequence[Overdue]


@dataclass(frozen=True, slots=True)
class Outlined:
    """One decision of a request, without what was said."""

    id: UUID
    action: str
    state: State
    accepted_at: datetime
    parent_job_id: UUID | None


def glance(connection: Connection, tenant: str) -> Glance:
    """Read how a tenant's jobs stand."""
    asked = {"tenant": tenant}
    beats = {row.beat: Beat(row.accepted, row.well, row.badly) for row in connection.execute(PULSE, asked)}
    pulse = [beats.get(beat, Beat(0, 0, 0)) for beat in reversed(range(BEATS))]
    return Glance(standing(connection, tenant), pulse, [_overdue(row) for row in connection.execute(OLDEST_DUE, asked)])


def outline(connection: Connection, tenant: str, request_id: str) -> list[Outlined]:
    """Read which decisions were made for a request, in the order they were made; at most a thousand."""
    asked = {"tenant": tenant, "request_id": request_id}
    rows: list[Any] = list(connection.execute(OUTLINE, asked))
    return [Outlined(r.id, r.action, State(r.state), r.accepted_at, r.parent_job_id) for r in rows]


def _overdue(row: Any) -> Overdue:
    return Overdue(row.id, row.action, State(row.state), row.attempt, row.due_at, float(row.overdue))

"""The ledger's side of breakers: what each went through, once; and the jobs that wait for one, let go one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.engine import Connection

from producer.breaker_words import CLOSED, OPEN, Transition
from producer.ledger.states import State

# Jobs let go by one statement; it holds their rows for a few milliseconds.
BATCH = 1_000
FIRST = UUID(int=0)
# Every worker has forgotten by then a hold that was ended (worker/holds.py asks twice a second).
FORGOTTEN_SECONDS = 1.0
# Whoever is due for longer may never come: its queue has no worker, or none that knows its version.
VAIN_SECONDS = 30.0

NOW = text("SELECT statement_timestamp()")

LAND = text("""
INSERT INTO breaker_events (name, epoch, at, was, becomes, reason, who, job_id, until)
SELECT name, epoch, at, was, becomes, reason, who, job_id, until
FROM json_to_recordset(CAST(:moves AS json)) AS m(name text, epoch bigint, at timestamptz, was text, becomes text,
  reason text, who text, job_id uuid, until timestamptz)
ORDER BY name, epoch
ON CONFLICT DO NOTHING
RETURNING name, epoch
""")

# The oldest first, so far apart as its dependency says. A job that somebody has locked is being moved already, and one
# that is due comes anyway. Whoever dies between two batches leaves the rest with the times at which they come back by
# themselves.
_RELEASE = """
WITH parked AS (
  SELECT id FROM jobs WHERE {who} AND waiting_on = :name AND id > :after AND due_at > CAST(:since AS timestamptz)
  ORDER BY id LIMIT :batch FOR UPDATE SKIP LOCKED
), placed AS (
  SELECT id, CAST(:since AS timestamptz)
    + make_interval(secs => (:before + row_number() OVER (ORDER BY id) - 1) / CAST(:rate AS double precision)) AS due
  FROM parked
), released AS (
  UPDATE jobs j SET due_at = p.due, ring_at = p.due FROM placed p WHERE j.id = p.id
)
SELECT id FROM parked ORDER BY id
"""
RELEASE = text(_RELEASE.format(who="waiting_for = 'breaker'"))
# There is no index of these alone: an operator ends a hold seldom.
RELEASE_HELD = text(_RELEASE.format(who=f"waiting_for = 'rate' AND state = '{State.WAITING}'"))

# Where one call may try at once, somebody has to: who waited was to come back only with the time that is no more. Not
# one that is due already: nobody may have a place for that, or know it.
TRY = text("""
UPDATE jobs SET due_at = statement_timestamp(), ring_at = statement_timestamp()
WHERE id = (
  SELECT id FROM jobs WHERE waiting_for = 'breaker' AND waiting_on = :name AND due_at > statement_timestamp()
    AND id <> :but
  ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
)
""")

# Over the index of those who wait for one: of all tenants, for the relay. Whoever is due for long is not about to come.
WAITING = text("""
SELECT waiting_on AS name, count(*) FILTER (WHERE due_at > statement_timestamp()) AS jobs,
  extract(epoch FROM min(due_at) FILTER (WHERE due_at > statement_timestamp() - make_interval(secs => :vain))
    - statement_timestamp()) AS first,
  extract(epoch FROM max(due_at) - statement_timestamp()) AS last
FROM jobs WHERE waiting_for = 'breaker' GROUP BY waiting_on HAVING max(due_at) > statement_timestamp()
""")

HELD = text("""
SELECT waiting_on AS name, count(*) AS jobs, min(due_at) AS next_due FROM jobs
WHERE waiting_for = 'breaker' AND tenant = :tenant GROUP BY waiting_on
""")
# Over the index of those on their way, as the whole ledger's standing is. Who waits for a limit's rate waits on nobody.
PATIENT = text(f"""
SELECT waiting_on AS name, count(*) AS jobs, min(due_at) AS next_due FROM jobs
WHERE state = '{State.WAITING}' AND waiting_for = 'rate' AND waiting_on IS NOT NULL AND tenant = :tenant
GROUP BY waiting_on
""")

HISTORY = text("""
SELECT name, epoch, was, becomes, reason, who, job_id, until FROM breaker_events
WHERE name = :name ORDER BY epoch DESC LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class Held:
    """How many of a tenant's jobs wait for a dependency, and when the first of them comes back by itself."""

    jobs: int
    next_due: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many jobs of all tenants wait for a breaker, and after how many seconds the first and the last come back.

    Those that are due already are no longer among them; `first_seconds` is 0 or less where one became so just now.
    """

    name: str
    jobs: int
    first_seconds: float
    last_seconds: float


def land(
    connection: Connection, moves: Sequence[Transition], *, goes_on: Callable[[str], object] = lambda _: None
) -> list[Transition]:
    """Write down transitions, and let go whoever waited for what closed; return those that nobody had written down.

    Where an operator's word ended that had kept a breaker open, the oldest of its jobs is due, to try.

    Safe to repeat, and in several processes at once: one of them writes each. A crash after that, and before all are
    let go, leaves those with the times at which they come back by themselves.

    Args:
        connection: In autocommit.
        moves: In the order in which they happened.
        goes_on: See `release`.
    """
    if not moves:
        return []
    facts = [
        {
            "name": move.name,
            "epoch": move.epoch,
            "at": move.at.isoformat(),
            "was": move.was,
            "becomes": move.becomes,
            "reason": move.reason,
            "who": move.who,
            "job_id": None if move.job_id is None else str(move.job_id),
            "until": None if move.until is None else move.until.isoformat(),
        }
        for move in moves
    ]
    written = {(row.name, row.epoch) for row in connection.execute(LAND, {"moves": json.dumps(facts)})}
    landed = [move for move in moves if (move.name, move.epoch) in written]
    latest = {move.name: move for move in landed}
    for move in latest.values():
        if move.becomes == CLOSED:
            release(connection, move.name, per_second=move.release_per_second, goes_on=goes_on)
        elif move.becomes == OPEN and move.until is not None and move.until <= move.at:
            try_it(connection, move.name)
    return landed


def try_it(connection: Connection, name: str, *, last: UUID | None = None) -> int:
    """Have the oldest of the jobs that wait for a breaker be due, to try; return how many that are: one, or none.

    Args:
        connection: In autocommit.
        name: The breaker's.
        last: Whose try failed; it goes only where there is no other, since its attempts are spent by that.
    """
    tried = connection.execute(TRY, {"name": name, "but": last or FIRST}).rowcount
    if tried or last is None:
        return tried
    return connection.execute(TRY, {"name": name, "but": FIRST}).rowcount


def release_held(connection: Connection, name: str, *, per_second: float) -> int:
    """Have the jobs come back that wait because a dependency had asked for patience; see `release`.

    Not at once: a worker that still knows of the hold would have them wait for as long again.
    """
    before = ceil(FORGOTTEN_SECONDS * per_second)
    return release(connection, name, per_second=per_second, statement=RELEASE_HELD, before=before)


def release(
    connection: Connection,
    name: str,
    *,
    per_second: float,
    statement: TextClause = RELEASE,
    before: int = 0,
    goes_on: Callable[[str], object] = lambda _: None,
) -> int:
    """Have the jobs that wait for a breaker come back, the oldest first, `per_second`; return how many are not due yet.

    Args:
        connection: In autocommit: each batch is a transaction.
        name: The breaker's.
        per_second: More than 0.
        statement: Says which of those that wait.
        before: As if so many went first.
        goes_on: Told the name between two batches: of very many jobs there are many.
    """
    # One moment for all batches, or they would be the further apart the longer it takes.
    since = connection.execute(NOW).scalar_one()
    released, after = 0, FIRST
    while True:
        asked = {
            "name": name,
            "since": since,
            "after": after,
            "batch": BATCH,
            "before": before + released,
            "rate": per_second,
        }
        ids = list(connection.execute(statement, asked).scalars())
        released += len(ids)
        if len(ids) < BATCH:
            return released
        after = ids[-1]
        goes_on(name)


def waiting(connection: Connection) -> list[Waiting]:
    """Return how many jobs wait for which breaker, and until when."""
    rows = connection.execute(WAITING, {"vain": VAIN_SECONDS})
    return [Waiting(row.name, row.jobs, float(row.first), float(row.last)) for row in rows]


def held(connection: Connection, tenant: str) -> dict[str, Held]:
    """Return how many of a tenant's jobs wait for which breaker."""
    return {row.name: Held(row.jobs, row.next_due) for row in connection.execute(HELD, {"tenant": tenant})}


def patient(connection: Connection, tenant: str) -> dict[str, Held]:
    """Return how many of a tenant's jobs wait because which dependency asked for patience."""
    return {row.name: Held(row.jobs, row.next_due) for row in connection.execute(PATIENT, {"tenant": tenant})}


def history(connection: Connection, name: str, *, limit: int) -> list[Transition]:
    """Return the latest transitions of a breaker, the newest first."""
    rows = connection.execute(HISTORY, {"name": name, "limit": limit})
    return [Transition(**row._mapping) for row in rows]  # noqa: SLF001  SQLAlchemy's public way to a row's names

"""What the ledger knows that somebody has to be told of. It is read and never written: a crash here loses nothing.

The ledger, not the log: what befell a job is told although the worker that it befell is gone. One process of the fleet
looks at a time (`Turn` in worker/alert_memory.py); who it is, Redis says, and where that is away a lock of Postgres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.engine import Connection

from producer.breaker_words import Transition
from producer.ledger.states import LEASED, RINGABLE, State, in_sql
from worker.alert_words import Troubled, Waits

# Who begins to look goes back so far: what befell jobs while nobody looked is told late, and not never.
BACK = timedelta(hours=6)
MOVES_BACK = timedelta(hours=1)
# What ended at a moment is seen a little later, when its transaction is through.
OVERLAP = timedelta(seconds=30)
BATCH, MOVES_BATCH, APPROVALS_BATCH, LATE_COUNTED = 5_000, 500, 500, 10_000
FIRST = UUID(int=0)
# Of the rules under which a job fails, those by which everything was tried.
EXHAUSTED = frozenset({"out of retries", "out of repairs", "no time before the deadline"})
# Any number, the same in all processes.
LOCK = 7_201_951_366

TROUBLED = """
SELECT j.id, j.tenant, j.action, j.state, j.attempt + j.crashes AS round, {at} AS at,
  coalesce(e.data ->> 'why', e.kind, '') AS why, d.error ->> 'type' AS error_type
FROM ({jobs}) j
LEFT JOIN events e ON e.job_id = j.id AND e.seq = j.last_seq LEFT JOIN decisions d ON d.job_id = j.id
"""
# A plain no of the other side and a breaker's fallback are for the action to expect; that all was tried is not.
ENDED = text(
    TROUBLED.format(
        at="j.finished_at",
        jobs="""
  SELECT * FROM jobs WHERE state IN ('dead', 'degraded', 'failed') AND finished_at > :since
    AND (state <> 'degraded' OR degraded_by NOT LIKE 'breaker %')
  ORDER BY finished_at LIMIT :batch
""",
    )
    + "ORDER BY j.finished_at"
)
# For these somebody was asked, and nobody answered. That a job's deadline passed for another reason is its caller's.
EXPIRED = text(f"""
SELECT j.id, j.tenant, j.action, '{State.EXPIRED}' AS state, j.attempt + j.crashes AS round, p.decided_at AS at,
  'nobody decided what ' || p.rule || ' asked' AS why, NULL AS error_type
FROM (
  SELECT job_id, rule, decided_at FROM approvals WHERE state = 'expired' AND decided_at > :since
  ORDER BY decided_at LIMIT :batch
) p JOIN jobs j ON j.id = p.job_id ORDER BY p.decided_at
""")
# Nobody looks it up any more: nothing ever did, the last look could not tell, or whoever made that look is gone.
IN_DOUBT = text(
    TROUBLED.format(
        at="greatest(e.at, CASE WHEN j.looks_left = 0 AND j.due_at <= clock_timestamp() THEN j.due_at END)",
        jobs=f"""
  SELECT * FROM jobs WHERE state = '{State.IN_DOUBT}' AND id > :after AND coalesce(looks_left, 0) = 0
  ORDER BY id LIMIT :batch
""",
    )
    + """
WHERE j.looks_left IS NULL OR j.due_at <= clock_timestamp()
  OR (e.kind = 'verified' AND e.data ->> 'looks_left' = '0')
ORDER BY j.id
"""
)
# The statement's time, not the clock's: an index is looked up by what stands still.
MOVED = text("""
SELECT name, epoch, was, becomes, reason, who, job_id, until FROM breaker_events
WHERE at > statement_timestamp() - :back ORDER BY at DESC LIMIT :batch
""")
# A due job is looked at by a relay once a minute at least, so `ring_at` leaves out those that are to run later.
LATE = text(f"""
SELECT count(*) AS jobs, min(due_at) AS since FROM (
  SELECT due_at FROM jobs
  WHERE state IN ({in_sql(RINGABLE)}) AND ring_at <= statement_timestamp() + interval '2 minutes'
    AND due_at <= statement_timestamp() - make_interval(secs => :seconds)
  LIMIT {LATE_COUNTED} + 1
) late
""")
# Every relay moves `ring_at` of what is due, and takes over leases that ran out, within seconds, whatever the load.
UNSEEN = text(f"""
SELECT clock_timestamp() AS now, least(
    (SELECT min(ring_at) FROM jobs WHERE state IN ({in_sql(RINGABLE)})),
    (SELECT min(ring_at) FROM jobs WHERE looks_left > 0),
    (SELECT min(lease_expires_at) FROM jobs WHERE state IN ({in_sql(LEASED)}))
  ) AS since,
  coalesce((SELECT max(lease_expires_at) FROM jobs WHERE state IN ({in_sql(LEASED)})) > clock_timestamp(), false)
    AS somebody
""")
# By a partial index, in its order: what ends soonest goes first.
APPROVALS = text("""
SELECT id, job_id, tenant, action, rule, coalesce(escalated_at, requested_at) AS at, expires_at,
  escalated_at IS NOT NULL AS escalated
FROM approvals WHERE state = 'pending' ORDER BY expires_at LIMIT :batch
""")
MINE = text("SELECT pg_try_advisory_lock(:key)")
NOT_MINE = text("SELECT pg_advisory_unlock(:key)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was found at a look.

    Attributes:
        at: When, by the database's clock.
        jobs: That ended badly, or expired undecided, since the last look, or a little before it; and that are in doubt
            for good.
        moves: Of breakers, the oldest first.
        approvals: What waits for people, what ends soonest first.
        late: How many jobs are due for too long, at most 10,001.
        late_since: Since when the oldest of these is.
        unseen_since: Since when nobody has looked at what is due; None where somebody did lately.
    """

    at: datetime
    jobs: Sequence[Troubled]
    moves: Sequence[Transition]
    approvals: Sequence[Waits] = ()
    late: int
    late_since: datetime | None
    unseen_since: datetime | None


@dataclass(slots=True)
class Looker:
    """Looks, again and again, over one connection at a time.

    Attributes:
        due_seconds: For how long a job may be due.
        silent_seconds: For how long nobody may have looked at what is due.
    """

    due_seconds: float
    silent_seconds: float
    _since: dict[str, datetime] = field(default_factory=dict)
    _after: UUID = FIRST
    _locked_on: Any = field(default=None)

    def look(self, connection: Connection) -> Look:
        """Read what is new, and how it stands.

        Args:
            connection: In autocommit.
        """
        unseen = connection.execute(UNSEEN).one()
        now: datetime = unseen.now
        silent = unseen.since is not None and not unseen.somebody
        late = connection.execute(LATE, {"seconds": self.due_seconds}).one()
        moves = connection.execute(MOVED, {"back": MOVES_BACK, "batch": MOVES_BATCH}).all()
        return Look(
            at=now,
            jobs=[*self._ended(connection, now), *self._expired(connection, now), *self._doubts(connection)],
            moves=[Transition(**row._mapping) for row in reversed(moves)],  # noqa: SLF001  SQLAlchemy's public way
            approvals=[Waits(**row._mapping) for row in connection.execute(APPROVALS, {"batch": APPROVALS_BATCH})],  # noqa: SLF001  as above
            late=late.jobs,
            late_since=late.since,
            unseen_since=unseen.since
            if silent and now - unseen.since > timedelta(seconds=self.silent_seconds)
            else None,
        )

    def begin_anew(self) -> None:
        """Go back at the next look: it was another's turn meanwhile."""
        self._since, self._after = {}, FIRST

    def lock(self, connection: Connection) -> bool:
        """Take the turn by a lock of Postgres, which lasts as long as the connection; say whether it is this one's."""
        raw = connection.connection.dbapi_connection
        if self._locked_on is raw:
            return True
        mine = bool(connection.execute(MINE, {"key": LOCK}).scalar())
        self._locked_on = raw if mine else None
        return mine

    def unlock(self, connection: Connection) -> None:
        """Give that up."""
        if self._locked_on is not None and self._locked_on is connection.connection.dbapi_connection:
            connection.execute(NOT_MINE, {"key": LOCK})
        self._locked_on = None

    def _ended(self, connection: Connection, now: datetime) -> list[Troubled]:
        rows = self._new(connection, "ended", ENDED, now)
        return [_troubled(row) for row in rows if row.state != State.FAILED or row.why in EXHAUSTED]

    def _expired(self, connection: Connection, now: datetime) -> list[Troubled]:
        return [_troubled(row) for row in self._new(connection, "expired", EXPIRED, now)]

    def _new(self, connection: Connection, what: str, statement: TextClause, now: datetime) -> Sequence[Any]:
        """Read what befell jobs since this was last asked, or a little before it."""
        since = self._since.get(what, now - BACK)
        rows = connection.execute(statement, {"since": since, "batch": BATCH}).all()
        # A full batch is gone on from where it ended, lest it be read over and over.
        self._since[what] = rows[-1].at if len(rows) == BATCH else now - OVERLAP
        return rows

    def _doubts(self, connection: Connection) -> list[Troubled]:
        rows = connection.execute(IN_DOUBT, {"after": self._after, "batch": BATCH}).all()
        self._after = rows[-1].id if len(rows) == BATCH else FIRST
        return [_troubled(row) for row in rows]


def _troubled(row: Any) -> Troubled:
    return Troubled(
        id=row.id,
        tenant=row.tenant,
        action=row.action,
        state=State(row.state),
        round=row.round,
        at=row.at,
        why=row.why,
        error_type=row.error_type,
    )

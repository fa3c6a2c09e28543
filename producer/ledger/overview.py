"""How the whole ledger stands, or one tenant's jobs, over the partial indexes that hold the few rows on their way."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.ledger.states import LEASED, RINGABLE, State, in_sql

# What a person looks for and what is rare is indexed; a state of many, such as succeeded, is not counted.
TO_LOOK_AT = (State.AWAITING_APPROVAL, State.DEAD, State.FAILED, State.IN_DOUBT)
# Of one tenant, or of all.
_THEIRS = "(CAST(:tenant AS text) IS NULL OR tenant = :tenant)"
ON_THEIR_WAY = text(f"""
SELECT state, waiting_for, queue, count(*) AS jobs, count(*) FILTER (WHERE due_at <= clock_timestamp()) AS due,
  coalesce(extract(epoch FROM clock_timestamp() - min(due_at)), 0) AS oldest_due
FROM jobs WHERE state IN ({in_sql(RINGABLE)}) AND {_THEIRS} GROUP BY state, waiting_for, queue
UNION ALL
SELECT state, NULL, queue, count(*), 0, 0
FROM jobs WHERE state IN ({in_sql(LEASED)}) AND {_THEIRS} GROUP BY state, queue
UNION ALL
SELECT state, NULL, NULL, count(*), 0, 0
FROM jobs WHERE state IN ({in_sql(TO_LOOK_AT)}) AND {_THEIRS} GROUP BY state
""")


@dataclass(slots=True)
class QueueStanding:
    """What there is to do for the workers of one queue.

    Attributes:
        due: Jobs that are due, and with no worker.
        leased: Jobs that workers have.
        oldest_due: For how many seconds the oldest of the due ones is.
    """

    due: int = 0
    leased: int = 0
    oldest_due: float = 0.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How many jobs stand where.

    Attributes:
        jobs: By state; only of those on their way, and those that a person may have to look at.
        waiting_for: Of those in the state ``waiting``, by what for.
        due: Due, and with no worker.
        oldest_due: For how many seconds the oldest of these is.
        queues: By queue, where anything is on its way.
    """

    jobs: Mapping[State, int]
    waiting_for: Mapping[str, int]
    due: int
    oldest_due: float
    queues: Mapping[str, QueueStanding]


def standing(connection: Connection, tenant: str | None = None) -> Standing:
    """Read how a tenant's jobs stand; None is everybody's."""
    jobs = dict.fromkeys((*RINGABLE, *LEASED, *TO_LOOK_AT), 0)
    waiting_for: Counter[str] = Counter()
    queues: defaultdict[str, QueueStanding] = defaultdict(QueueStanding)
    rows: list[Any] = list(connection.execute(ON_THEIR_WAY, {"tenant": tenant}))
    for row in rows:
        jobs[State(row.state)] += row.jobs
        if row.waiting_for is not None:
            waiting_for[row.waiting_for] += row.jobs
        if row.queue is not None:
            queue = queues[row.queue]
            queue.due += row.due
            queue.leased += row.jobs if State(row.state) in LEASED else 0
            queue.oldest_due = max(queue.oldest_due, float(row.oldest_due))
    oldest = max((each.oldest_due for each in queues.values()), default=0.0)
    return Standing(jobs, waiting_for, sum(row.due for row in rows), oldest, queues)

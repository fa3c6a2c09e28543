"""A job's states and the only moves between them.

Every statement that moves a job names the states it moves from with `may_become`, so its row count is the
answer: 0 rows means that somebody else moved the job first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """Where a job stands. The value is what the ledger stores."""

    AWAITING_APPROVAL = "awaiting_approval"
    QUEUED = "queued"
    WAITING = "waiting"  # due later; waiting_for says why
    CLAIMED = "claimed"  # a worker owns it; nothing outside has been touched yet
    RUNNING = "running"  # the intent is committed; the effect may have happened
    IN_DOUBT = "in_doubt"  # the effect may have happened and nobody can say
    SUCCEEDED = "succeeded"
    DEGRADED = "degraded"  # the declared fallback stands in for the result
    FAILED = "failed"  # refused for good
    DEAD = "dead"  # out of retries, or of crashes
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"


S = State

MOVES: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        S.AWAITING_APPROVAL: frozenset({S.QUEUED, S.REJECTED, S.EXPIRED, S.CANCELLED}),
        S.QUEUED: frozenset({S.CLAIMED, S.CANCELLED, S.EXPIRED}),
        # In doubt, not cancelled or expired, where an earlier attempt may have had its effect.
        S.WAITING: frozenset({S.CLAIMED, S.CANCELLED, S.EXPIRED, S.IN_DOUBT}),
        # Expired: its deadline passed before the intent. In doubt: as above. Dead: it took too many workers down.
        S.CLAIMED: frozenset(
            {
                S.RUNNING,
                S.WAITING,
                S.QUEUED,
                S.FAILED,
                S.DEGRADED,
                S.AWAITING_APPROVAL,
                S.CANCELLED,
                S.EXPIRED,
                S.IN_DOUBT,
                S.DEAD,
            }
        ),
        S.RUNNING: frozenset({S.SUCCEEDED, S.DEGRADED, S.FAILED, S.WAITING, S.IN_DOUBT, S.DEAD}),
        S.IN_DOUBT: frozenset({S.SUCCEEDED, S.WAITING, S.FAILED, S.DEAD}),
        S.DEAD: frozenset({S.QUEUED}),
        S.SUCCEEDED: frozenset(),
        # By a true result that came later, and by that only: see superseding.py.
        S.DEGRADED: frozenset({S.SUCCEEDED}),
        S.FAILED: frozenset(),
        S.CANCELLED: frozenset(),
        S.REJECTED: frozenset(),
        S.EXPIRED: frozenset(),
    }
)

LEASED = frozenset({S.CLAIMED, S.RUNNING})
RINGABLE = frozenset({S.QUEUED, S.WAITING})
CLOSED = frozenset({S.SUCCEEDED, S.DEGRADED, S.FAILED, S.DEAD, S.CANCELLED, S.REJECTED, S.EXPIRED})
OPEN = frozenset(S) - CLOSED
# Where no worker moves it any more by itself: whoever waits for a job is told. One in doubt may still be looked up, and
# is not at rest then (`JobRecord.is_at_rest`).
AT_REST = CLOSED | {S.IN_DOUBT}
# What on_closed="rerun_if_failed" runs again: ended, and provably or by decision without the effect.
WITHOUT_RESULT = CLOSED - {S.SUCCEEDED, S.DEGRADED}
# How often an action is asked what became of a job in doubt, before a person has to find out.
LOOKS = 20


def may_become(*targets: State) -> str:
    """Return the states that may move to every one of `targets`, as an SQL list: ``'queued', 'waiting'``."""
    return in_sql(source for source, legal in MOVES.items() if legal.issuperset(targets))


def looks_left(becomes: str) -> str:
    """Return what `looks_left` is to be for a job ``j`` that becomes what the SQL expression `becomes` says."""
    return f"CASE WHEN {becomes} = '{State.IN_DOUBT}' AND j.quiet_at IS NOT NULL THEN {LOOKS} END"


def in_sql(states: Iterable[State]) -> str:
    """Return `states` as an SQL list. Constants, not parameters: partial indexes match constants only."""
    return ", ".join(f"'{state}'" for state in sorted(states))

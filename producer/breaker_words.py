"""What both sides call a breaker's things in Redis, and what a transition is. Workers move breakers; operators may.

Everything is in milliseconds of Redis's clock. The keys:

    surefoot:breaker:NAME           hash    one breaker: see producer/breaker_scripts.py
    surefoot:breakers               zset    the names of those that had something to tell, by when they last had; where
                                            an operator's word stands in one, by until when
    surefoot:breakers:moves         stream  every transition, until the ledger has it (`producer.ledger.breakers`)
    surefoot:breakers:looked        string  that somebody has just looked who waits for them (worker/breaker_waiters.py)
    surefoot:breakers:released:NAME string  that somebody is letting go very many jobs that waited for it (as above)
    surefoot:breakers:word          channel a breaker's name, when it has moved or begins to see failures
    surefoot:held:NAME              string  why nobody calls it, for as long as it asked for patience (worker/holds.py)
    surefoot:held-line:NAME         string  when the last of the jobs comes back that wait for that
    surefoot:holds                  zset    the names of those that did, by until when; a word may have ended it since
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

NAME_LIMIT = 200
NAMES, MOVES, WORD = "surefoot:breakers", "surefoot:breakers:moves", "surefoot:breakers:word"
LOOKED = "surefoot:breakers:looked"
HOLDS = "surefoot:holds"

OPEN, CLOSED, HALF_OPEN = "open", "closed", "half-open"  # pybreaker's words
STATES = frozenset({OPEN, CLOSED, HALF_OPEN})
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
SLOWEST_PER_SECOND, FASTEST_PER_SECOND = 1e-6, 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """That a breaker went from one state to another.

    Attributes:
        name: The breaker's.
        epoch: Tells it from every other of its breaker, and grows: the time at which it happened, in milliseconds.
        was: ``closed`` | ``open`` | ``half-open``.
        becomes: One of these; the same as `was` where only an operator's word came or went.
        reason: The rule that moved it, or what the operator gave as a reason.
        who: The worker that saw it, or the operator.
        job_id: The job whose call, or whose turn, moved it; None where no call did.
        until: Until when it stays open; None where it is not, or where an operator said for good.
        release_per_second: How fast the jobs that wait for it may come back.
    """

    name: str
    epoch: int
    was: str
    becomes: str
    reason: str
    who: str
    job_id: UUID | None = None
    until: datetime | None = None
    release_per_second: float = 10.0

    @property
    def at(self) -> datetime:
        """When it happened, by Redis's clock."""
        return moment(self.epoch)


def key_of(name: str) -> str:
    """Return the key of a breaker's hash."""
    return f"surefoot:breaker:{name}"


def keys_of(name: str) -> list[str]:
    """Return the keys that every script takes, in their order."""
    return [key_of(name), MOVES, NAMES]


def released_key_of(name: str) -> str:
    """Return the key that is there while somebody lets go very many jobs that waited for a breaker."""
    return f"surefoot:breakers:released:{name}"


def held_key_of(name: str) -> str:
    """Return the key that is there for as long as a dependency asked to be left alone."""
    return f"surefoot:held:{name}"


def line_key_of(name: str) -> str:
    """Return the key of the line of those who wait until it may be called again."""
    return f"surefoot:held-line:{name}"


def transition_of(fields: Mapping[str, Any]) -> Transition:
    """Return a transition as a script writes it: flat, all text.

    Raises:
        KeyError, ValueError, ArithmeticError: If it is none, or none that the ledger could keep.
    """
    job, until = fields["job"], int(fields["until"])
    found = Transition(
        name=fields["name"],
        epoch=int(fields["epoch"]),
        was=fields["was"],
        becomes=fields["becomes"],
        reason=fields["reason"],
        who=fields["who"],
        job_id=UUID(job) if job else None,
        until=moment(until) if until > 0 else None,
        release_per_second=per_second(fields["gap"]),
    )
    _check(found)
    return found


def per_second(gap: str) -> float:
    """Return how many jobs come back in a second that do so `gap` milliseconds apart.

    Raises:
        ValueError, ArithmeticError: If that is no gap.
    """
    rate = 1000 / float(gap)
    if not rate > 0:
        raise ValueError("its jobs come back at no rate")
    return min(max(rate, SLOWEST_PER_SECOND), FASTEST_PER_SECOND)


def _check(found: Transition) -> None:
    if found.was not in STATES or found.becomes not in STATES:
        raise ValueError(f"it does not go from one of {', '.join(sorted(STATES))} to another")
    if not 0 < len(found.name) <= NAME_LIMIT:
        raise ValueError(f"its name does not have 1 to {NAME_LIMIT} characters")
    if "\0" in found.name + found.reason + found.who:
        raise ValueError("it has a NUL, which is no text to Postgres")
    if found.epoch <= 0 or not found.at:  # what is no moment raises
        raise ValueError("its epoch is no moment")


def moment(milliseconds: float) -> datetime:
    """Return a time of Redis's clock; raises OverflowError where that is in no year that there is."""
    return BEGINNING + timedelta(milliseconds=milliseconds)


def as_text(flat: Any) -> dict[str, str]:
    """Return a flat list of names and values, as Redis answers it, as a mapping of texts."""
    words = [word.decode() if isinstance(word, bytes) else str(word) for word in flat]
    return dict(zip(words[::2], words[1::2], strict=True))

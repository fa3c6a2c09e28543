"""What a breaker is asked and told, and what it answers, whether it stands in Redis or in this process's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pybreaker

from producer.breaker_words import as_text

REFUSED, ADMITTED, PROBES = 0, 1, 2


class BreakerOpen(pybreaker.CircuitBreakerError):
    """A call must not be made now.

    Attributes:
        name: The breaker's.
        state: ``open``, ``half-open``, or ``unknown`` where Redis is away and the dependency is `reject`.
        seconds: After how long to ask again.
    """

    def __init__(self, name: str, state: str, seconds: float) -> None:
        """Say whose breaker stands how."""
        super().__init__(f"the breaker of {name} is {state}; ask again in {seconds:g} s")
        self.name, self.state, self.seconds = name, state, seconds

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the constructor's own arguments."""
        return type(self), (self.name, self.state, self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A transition, as whoever brought it about is told of it; `shared` where it is the whole fleet's breaker's."""

    was: str
    becomes: str
    epoch: int
    reason: str
    shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a breaker says of a call, or after one.

    Attributes:
        decision: `ADMITTED`, `PROBES` where the call is the one that tries, or `REFUSED`.
        state: Where the breaker stands now.
        epoch: Since which transition.
        wait_ms: Milliseconds after which to ask again, where it is refused.
        failed: Failures in a row.
        passed: Tries that succeeded since it is half-open.
        moves: The transitions that this very question brought about.
    """

    decision: int
    state: str
    epoch: int
    wait_ms: int = 0
    failed: int = 0
    passed: int = 0
    moves: tuple[Move, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a breaker is told after a call, or of several that succeeded.

    Attributes:
        token: Of the call that tried; empty for others.
        epoch: Since which transition the breaker stood as it did when the call began.
        bad: 1 where it failed.
        slow: 1 where it took too long, whether it failed or not.
        asked_ms: For how long the other side asked for patience.
        ok: How many succeeded, by the age of their buckets.
    """

    token: str = ""
    epoch: int = 0
    bad: int = 0
    slow: int = 0
    asked_ms: int = 0
    ok: Sequence[tuple[int, int]] = ()


def answer_of(raw: Sequence[Any]) -> Answer:
    """Return what a script answers."""
    decision, state, epoch, wait_ms, failed, passed, _, moves = raw
    return Answer(
        decision=decision,
        state=state.decode(),
        epoch=epoch,
        wait_ms=wait_ms,
        failed=failed,
        passed=passed,
        moves=tuple(_move_of(flat) for flat in moves),
    )


def _move_of(flat: Sequence[bytes]) -> Move:
    told = as_text(flat)
    return Move(was=told["was"], becomes=told["becomes"], epoch=int(told["epoch"]), reason=told["reason"], shared=True)

"""How much is measured, and what was: one figure a round, or several, for each measure and each who is measured."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

Key = tuple[str, str]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: How often each peer plays.
        jobs: Worked off in a round where each has a message of its own; elsewhere a multiple or a part of them.
        waits: Results waited for in a round, at ten a second.
        ledger: Finished jobs in the full ledger.
    """

    rounds: int
    jobs: int
    waits: int
    ledger: int

    @property
    def enqueued(self) -> int:
        """Jobs enqueued one by one in a round while no worker runs."""
        return self.jobs // 2

    @property
    def batched(self) -> int:
        """Jobs enqueued or worked off in batches: five times as many, since they take a fraction of the time."""
        return self.jobs * 5

    @property
    def streamed(self) -> int:
        """Jobs with a ring each where many are wanted: enqueued while workers run, or to tell a small difference."""
        return self.jobs * 2


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured, by (measure, who)."""

    taken: dict[Key, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, measure: str, who: str, figure: float) -> None:
        """Keep a figure: a round's, or of one of several comparisons in it."""
        self.taken[measure, who].append(figure)

    def of(self, measure: str, who: str) -> list[float]:
        """Return the figures in order; empty where this was not measured."""
        return self.taken.get((measure, who), [])

    def median(self, measure: str, who: str) -> float:
        """Return the median of all."""
        return statistics.median(self.of(measure, who))

    def who_in(self, measure: str) -> list[str]:
        """Return by name everybody who was measured so."""
        return sorted(who for each, who in self.taken if each == measure)

    def ratios(self, mine: Key, other: Key) -> list[float]:
        """Return one figure over another, each with its own; empty where either was not measured."""
        mines, others = self.of(*mine), self.of(*other)
        return [a / b for a, b in zip(mines, others, strict=True)] if mines and others else []


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of them do not exceed."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def in_turn(players: Sequence[T], number: int) -> Sequence[T]:
    """Return the order of a round: A B C, then B C A, so that nobody always plays after the same neighbour."""
    first = number % len(players)
    return (*players[first:], *players[:first])

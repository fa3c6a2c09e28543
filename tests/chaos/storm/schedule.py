"""Which fault comes when: drawn from a seed, the same each time. Pure: reads no clock and does nothing.

A storm comes in waves with quiet between them, in which one sees how fast it recovers. Within a wave each lane has its
faults one after the other; none of them is planned beyond its wave's end.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tests.chaos.storm.kinds import KINDS, Kind

WAVE_SECONDS = 22.0
QUIET_SECONDS = 6.0
# How many faults a wave has, in all lanes together.
IN_A_WAVE = 14
# What comes between two faults of a lane, at most.
GAP_SECONDS = 4.0
# How often a kind that was felt too seldom comes again, at most, and how far apart its choices lie.
AGAIN, APART = 4, (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A fault that is to come.

    Attributes:
        number: 1 is the first.
        at: Seconds after the storm's begin; later, where what came before in its lane lasted longer.
        seconds: How long it is to last.
        choice: In [0, 1): whom it hits, of those whom it can.
    """

    number: int
    at: float
    kind: str
    lane: str
    seconds: float
    choice: float


def make(seed: int, *, faults: int, kinds: Collection[str], quota: int) -> tuple[Planned, ...]:
    """Return a storm of so many faults, in the order of their begins.

    Args:
        seed: The same one gives the same storm.
        faults: How many there are.
        kinds: Of which kinds they may be.
        quota: How often each comes at least, as far as `faults` allow.
    """
    drawing = random.Random(f"storm {seed}")  # noqa: S311  not for secrets
    drawn = _draw(drawing, faults, sorted(kinds), quota)
    planned = sorted(_in_waves(drawing, drawn), key=lambda each: (each["at"], each["kind"]))
    return tuple(Planned(number=number, **each) for number, each in enumerate(planned, 1))


def lasts(planned: Sequence[Planned]) -> float:
    """Return when the last wave is over, seconds after the storm's begin."""
    waves = max((math.floor(each.at / (WAVE_SECONDS + QUIET_SECONDS)) for each in planned), default=-1) + 1
    return waves * (WAVE_SECONDS + QUIET_SECONDS)


def again(lane: Sequence[Planned], kind: str, numbers: Iterator[int]) -> Iterator[Planned]:
    """Yield what comes after a lane's faults where those of a kind were felt too seldom: it once more, at others.

    A storm of few faults would prove nothing whenever both of a kind have met nobody.
    """
    last = [planned for planned in lane if planned.kind == kind][-1]
    for times in range(1, AGAIN + 1):
        yield replace(last, number=next(numbers), at=lane[-1].at, choice=(last.choice + times * APART) % 1)


def plain(planned: Sequence[Planned]) -> list[dict[str, Any]]:
    """Return what `read` reads."""
    return [asdict(each) for each in planned]


def read(plan: Sequence[Mapping[str, Any]]) -> tuple[Planned, ...]:
    """Return the schedule of a storm that was, to have it again."""
    return tuple(Planned(**each) for each in plan)


def _draw(drawing: random.Random, faults: int, kinds: Sequence[str], quota: int) -> list[str]:
    drawn = [kind for kind in kinds for _ in range(quota)]
    drawing.shuffle(drawn)
    more = max(0, faults - len(drawn))
    drawn += drawing.choices(kinds, [KINDS[kind].weight for kind in kinds], k=more)
    drawn = drawn[:faults]
    drawing.shuffle(drawn)
    return drawn


def _in_waves(drawing: random.Random, drawn: list[str]) -> Iterator[dict[str, Any]]:
    waiting, began = list(drawn), 0.0
    while waiting:
        free: dict[str, float] = {}
        placed, left = 0, []
        for name in waiting:
            kind = KINDS[name]
            at = free.get(kind.lane, 0.0) + drawing.uniform(0.2, GAP_SECONDS)
            seconds = drawing.uniform(*kind.seconds)
            if placed == IN_A_WAVE or at + _takes(kind, seconds) > WAVE_SECONDS:
                left.append(name)
                continue
            placed += 1
            free[kind.lane] = at + _takes(kind, seconds)
            choice = drawing.random()
            yield {"at": round(began + at, 3), "kind": name, "lane": kind.lane, "seconds": round(seconds, 3)} | {
                "choice": round(choice, 6)
            }
        waiting, began = left, began + WAVE_SECONDS + QUIET_SECONDS


def _takes(kind: Kind, seconds: float) -> float:
    """Return how long its lane has to do with a fault: a process that ended must come back first."""
    return seconds + {"workers": 4.0, "worker": 4.0, "producers": 1.5, "api": 4.0, "postgres": 1.5}.get(kind.lane, 0.5)

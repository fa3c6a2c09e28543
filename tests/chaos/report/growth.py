"""Whether a process only ever grows: a robust slope of what it holds, once it has warmed up.

The slope is Theil and Sen's, the median of the slopes between all pairs of samples: a garbage collection, a burst of
load or a pause of the machine moves it little, a steady leak moves every pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from tests.chaos.report.inputs import Process, Sample

# What a process loads and opens in its first minutes is no leak.
WARM_UP_SECONDS = 120.0
# Less than this says nothing of what a day brings.
JUDGED_SECONDS = 180.0
# Growth beyond a fifth, and beyond what chance brings about. A worker's threads for sync actions come as bursts need
# them, and stay: up to all that it may have is no leak.
SHARE = 0.2
LEAST: Mapping[str, float] = {"rss_kib": 16 * 1024.0, "fds": 20.0, "threads": 32.0, "connections": 10.0}
# Servers, links and the world outside are watched, too; but books that keep everything have to grow.
CREW = ("worker-", "producer-", "api-")
# Of more samples than these, so many are taken at equal distances: pairs are many.
MOST_SAMPLES = 200

Measure = Literal["rss_kib", "fds", "threads", "connections"]
MEASURES: tuple[Measure, ...] = ("rss_kib", "fds", "threads", "connections")
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What became of one thing that a process holds.

    Attributes:
        seconds: How long it was watched after it had warmed up.
        level: The median over that time.
        per_minute: The slope; None where it was not watched for long enough.
        grew: The slope times the seconds.
        allowed: How much it may grow in that time.
    """

    process: str
    pid: int
    measure: Measure
    seconds: float
    level: float
    per_minute: float | None
    grew: float | None
    allowed: float

    @property
    def is_growing(self) -> bool:
        """Whether it grew by more than it may."""
        return self.grew is not None and self.grew > self.allowed


def growths(samples: Sequence[Sample]) -> list[Growth]:
    """Return, for each process of the crew that lived through its warm-up, how what it holds has grown."""
    lives: dict[tuple[str, int], list[tuple[float, Process]]] = {}
    for sample in samples:
        for process in sample.processes:
            if process.name.startswith(CREW):
                lives.setdefault((process.name, process.pid), []).append((sample.at, process))
    found: list[Growth] = []
    for (name, pid), life in lives.items():
        warm = [(at, process) for at, process in life if at >= life[0][0] + WARM_UP_SECONDS]
        if warm:
            found += (_growth(name, pid, each, [(at, float(getattr(p, each))) for at, p in warm]) for each in MEASURES)
    return found


def _growth(name: str, pid: int, measure: Measure, points: Points) -> Growth:
    seconds, level = points[-1][0] - points[0][0], median(value for _, value in points)
    slope = theil_sen(points) if seconds >= JUDGED_SECONDS else None
    return Growth(
        process=name,
        pid=pid,
        measure=measure,
        seconds=seconds,
        level=level,
        per_minute=None if slope is None else slope * 60.0,
        grew=None if slope is None else slope * seconds,
        allowed=max(SHARE * level, LEAST[measure]),
    )


def theil_sen(points: Points) -> float:
    """Return the median slope between all pairs of points that lie apart; 0 where there are none."""
    taken = thinned(points, MOST_SAMPLES)
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for number, earlier in enumerate(taken)
        for later in taken[number + 1 :]
        if later[0] > earlier[0]
    ]
    return median(slopes) if slopes else 0.0


def thinned(points: Points, most: int) -> Points:
    """Return at most so many of the points, the first and the last among them, at equal distances."""
    if len(points) <= most:
        return points
    step = (len(points) - 1) / (most - 1)
    return [points[round(number * step)] for number in range(most)]

"""How large a storm is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LARGE = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A storm's size.

    Attributes:
        jobs: How many are accepted at least, from the first to the last.
        faults: How many there are.
        quota: How many of each kind must have bitten, or the storm proves nothing.
        calm_seconds: How long all goes on undisturbed before the storm; what that brings is compared with it.
        per_second: How many requests all producers make in a second.
        minutes: How long the load goes on at most, whatever has been accepted.
        around_seconds: How long what comes before and after that may take: the starts, the calm, the drain, the ends.
        producers: Processes, as `workers`.
    """

    jobs: int
    faults: int
    quota: int
    calm_seconds: float
    per_second: float
    minutes: float
    around_seconds: float
    producers: int = 3
    workers: int = 4

    @property
    def seconds(self) -> float:
        """How long all of it may take."""
        return self.minutes * 60 + self.around_seconds

    @property
    def judges_speed(self) -> bool:
        """Whether throughput is held to its target, or only told.

        In a short storm on a machine that does other things they say more of the machine.
        """
        return self.jobs >= LARGE


SIZES: Mapping[str, Size] = {
    "smoke": Size(
        jobs=60, faults=4, quota=0, calm_seconds=2, per_second=8, minutes=1, around_seconds=180, producers=2, workers=2
    ),
    "slice": Size(jobs=5_000, faults=108, quota=1, calm_seconds=15, per_second=11, minutes=5, around_seconds=60),
    "release": Size(jobs=LARGE, faults=1_000, quota=8, calm_seconds=60, per_second=30, minutes=36, around_seconds=240),
}

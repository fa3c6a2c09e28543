"""How large a storm is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
        producers: Processes, as `workers`.
    """

    jobs: int
    faults: int
    quota: int
    calm_seconds: float
    per_second: float
    minutes: float
    producers: int = 3
    workers: int = 4


SIZES: Mapping[str, Size] = {
    "smoke": Size(jobs=60, faults=4, quota=0, calm_seconds=2.0, per_second=8.0, minutes=1.0, producers=2, workers=2),
    "slice": Size(jobs=5_000, faults=105, quota=1, calm_seconds=15.0, per_second=11.0, minutes=5.0),
    "release": Size(jobs=100_000, faults=1_000, quota=8, calm_seconds=60.0, per_second=30.0, minutes=36.0),
}

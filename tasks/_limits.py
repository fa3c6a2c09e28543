"""How much of an action may run, and how often: what its author declared, checked and worked out."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from producer.canonical import shown

WithoutRedis = Literal["local", "hold", "allow"]

RATE = re.compile(r"(\d+(?:\.\d+)?)/([smh])", re.ASCII)
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}
SLOWEST_PER_SECOND = 1 / 86_400
FASTEST_PER_SECOND = 1_000_000.0
MOST_AT_ONCE = 1_000_000
# What may run at once after a pause, in seconds' worth of the rate; at least one attempt.
BURST_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionLimits:
    """How much of an action may run. None is no limit. An attempt over a limit waits, and spends nothing.

    Attributes:
        max_concurrency: Attempts at the same time in one worker process.
        fleet_concurrency: Attempts at the same time in all of them.
        rate_limit: Attempts begun in a time, by all of them: ``10/s``, ``100/m``, ``1000/h``; a number is per second.
        limits_without_redis: What becomes of the latter two while Redis is away: ``local`` has each process keep them
            by itself, ``hold`` lets nothing run, ``allow`` lets everything.
    """

    max_concurrency: int | None = None
    fleet_concurrency: int | None = None
    rate_limit: str | float | None = None
    limits_without_redis: WithoutRedis = "local"

    def __post_init__(self) -> None:
        """Refuse what cannot be kept to.

        Raises:
            ValueError: Saying which option, and what to write instead.
        """
        for word in ("max_concurrency", "fleet_concurrency"):
            _check_count(word, getattr(self, word))
        if self.rate_limit is not None:
            _per_second(self.rate_limit)
        if self.limits_without_redis not in get_args(WithoutRedis):
            choices = ", ".join(get_args(WithoutRedis))
            raise ValueError(f"limits_without_redis={shown(self.limits_without_redis)} is none of {choices}")

    @property
    def are_any(self) -> bool:
        """Whether there are limits at all."""
        return self.max_concurrency is not None or self.are_fleet_wide

    @property
    def are_fleet_wide(self) -> bool:
        """Whether processes must agree on anything."""
        return self.fleet_concurrency is not None or self.rate_limit is not None

    @property
    def interval_us(self) -> int:
        """Microseconds from one attempt to the next at the full rate; 0 where there is no limit to it."""
        return 0 if self.rate_limit is None else round(1e6 / _per_second(self.rate_limit))

    @property
    def burst(self) -> int:
        """How many attempts may begin at once after a pause."""
        return 1 if self.rate_limit is None else max(1, int(_per_second(self.rate_limit) * BURST_SECONDS))

    def published(self) -> dict[str, Any]:
        """Return the limits as plain JSON, as declared."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _check_count(word: str, count: Any) -> None:
    if count is None:
        return
    if type(count) is not int or not 1 <= count <= MOST_AT_ONCE:  # a bool is an int, and no number of attempts
        raise ValueError(f"{word}={shown(count)} must be a whole number from 1 to {MOST_AT_ONCE}, or None")


def _per_second(rate: Any) -> float:
    found = RATE.fullmatch(rate) if isinstance(rate, str) else None
    if found is not None:
        per_second = float(found[1]) / UNIT_SECONDS[found[2]]
    elif isinstance(rate, (int, float)) and not isinstance(rate, bool):
        per_second = float(rate) if abs(rate) <= FASTEST_PER_SECOND else math.inf  # an int may be no float
    else:
        raise ValueError(f"rate_limit={shown(rate)} must be '10/s', '100/m', '1000/h', or a number per second")
    if not SLOWEST_PER_SECOND <= per_second <= FASTEST_PER_SECOND:
        raise ValueError(f"rate_limit={shown(rate)} must be more than 0: from one a day to {FASTEST_PER_SECOND:.0f}/s")
    return per_second

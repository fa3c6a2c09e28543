"""How the world outside behaves for a while: what becomes of its requests, drawn anew and the same for each seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# Only answers get lost on `lossy` and `half` days: the effect has happened by then.
Fate = Literal["plain", "lossy", "half", "slow", "refused", "patience"]
FATES: tuple[Fate, ...] = ("lossy", "half", "slow", "refused", "patience")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What share of the requests meets which fate.

    Attributes:
        lossy: Has its effect; the connection is reset instead of an answer.
        half: Has its effect; the answer breaks off in its midst.
        slow: Is answered `slow_seconds` late, after its effect.
        refused: Is told, 503, that nothing was done.
        patience: Is told, 429, to come again, and that nothing was done.
        latency: Seconds that every answer takes, beside.
        spared: Modes whose answers are never lost.
    """

    lossy: float = 0.0
    half: float = 0.0
    slow: float = 0.0
    refused: float = 0.0
    patience: float = 0.0
    slow_seconds: float = 1.0
    latency: float = 0.0
    spared: tuple[str, ...] = field(default=())
    seed: int = 0

    def fate(self, arrival: int, mode: str) -> Fate:
        """Return what becomes of a request."""
        drawn = random.Random(f"{self.seed}:{arrival}").random()  # noqa: S311  not for secrets
        for name in FATES:
            share: float = getattr(self, name)
            if drawn < share:
                return "plain" if mode in self.spared and name in ("lossy", "half") else name
            drawn -= share
        return "plain"


def weather_of(order: Mapping[str, Any]) -> Weather:
    """Read what the harness says."""
    return Weather(**{**order, "spared": tuple(order.get("spared", ()))})

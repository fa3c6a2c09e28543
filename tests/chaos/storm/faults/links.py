"""Faults of the links between the crew and a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from tests.chaos.storm.notes import Strike
from tests.chaos.storm.stage import Stage

HALVED = 0.6
# Each way, for every piece: a far region, on a bad day.
SLOW_SECONDS = 0.12


def _reset(server: str) -> Callable[[Stage, Strike], bool | None]:
    def reset(stage: Stage, strike: Strike) -> bool | None:
        link = stage.links[server]
        before = link.order("look")["cut"]
        strike.on(f"{server} link")
        return link.order("cut")["cut"] > before

    return reset


def _lasting(server: str, counted: str, do: str, **more: float) -> Callable[[Stage, Strike], bool | None]:
    def last(stage: Stage, strike: Strike) -> bool | None:
        link = stage.links[server]
        before = link.order("look")[counted]
        strike.on(f"{server} link")
        link.order(do, **more)
        time.sleep(strike.planned.seconds)
        return link.order("heal")[counted] > before

    return last


FAULTS: Mapping[str, Callable[[Stage, Strike], bool | None]] = {
    f"{server}_link_{name}": fault
    for server in ("redis", "postgres")
    for name, fault in {
        "reset": _reset(server),
        "hole": _lasting(server, "held", "hold"),
        "half": _lasting(server, "held", "halve", share=HALVED),  # what was sent into the half that is left
        "slow": _lasting(server, "slowed", "slow", seconds=SLOW_SECONDS),
    }.items()
}

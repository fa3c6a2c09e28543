"""Faults of the world outside: an effect server that dies, loses its answers, is slow, or refuses."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from tests.chaos.patience import NotReached, until
from tests.chaos.storm.asks_world import RUN
from tests.chaos.storm.notes import Strike
from tests.chaos.storm.stage import Stage

WORLD = "effect server"
BUSY_SECONDS = 3.0
MET_SECONDS = 6.0


def dies(stage: Stage, strike: Strike) -> bool | None:
    """Kill it while it has requests, and start it again with its books."""
    try:
        bit = bool(until(lambda: stage.world.open_requests(RUN), seconds=BUSY_SECONDS, what="a request"))
    except NotReached:
        bit = False
    strike.on(WORLD)
    stage.world.kill()
    time.sleep(strike.planned.seconds)
    stage.world.start_again()
    stage.blow()
    return bit


def _weather(*fates: str, **shares: float) -> Callable[[Stage, Strike], bool | None]:
    """Return what has the weather be bad for a while; it bites where it is met."""

    def blow(stage: Stage, strike: Strike) -> bool | None:
        before = stage.world.met(RUN)
        strike.on(WORLD)
        stage.blow(spared=[], **shares)

        def is_met() -> bool:
            met = stage.world.met(RUN)
            return any(met.get(fate, 0) > before.get(fate, 0) for fate in fates)

        time.sleep(strike.planned.seconds)
        try:  # where nobody could ask meanwhile, it lasts a little longer
            return until(is_met, seconds=MET_SECONDS, what="a request in this weather")
        except NotReached:
            return False
        finally:
            stage.blow()

    return blow


FAULTS: Mapping[str, Callable[[Stage, Strike], bool | None]] = {
    "world_dies": dies,
    "world_lossy": _weather("lossy", lossy=0.2),
    "world_half": _weather("half", half=0.2),
    "world_slow": _weather("slow", slow=0.4, slow_seconds=2.0),
    "world_refuses": _weather("refused", "patience", refused=0.3, patience=0.1),
}

"""Which script plays which kind of scenario."""

from __future__ import annotations

from collections.abc import Mapping

from tests.chaos.scenarios import gates, scripts, together
from tests.chaos.scenarios.scenario import Kind
from tests.chaos.scenarios.stage import Script

SCRIPTS: Mapping[Kind, Script] = {
    "turns": together.turns,
    "follow_ups": together.follow_ups,
    "ticks": together.ticks,
    "batch": together.batch,
    "cancel": scripts.cancel,
    "deadline": scripts.deadline,
    "hold": scripts.hold,
    "poison": scripts.poison,
    "late_arrival": scripts.late_arrival,
    "clock": scripts.alone,
    "approval": gates.approval,
    "budget": gates.budget,
    "gates": gates.gates,
}

"""How a worker gets a defect."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.chaos.agent import Agent
from tests.chaos.mutants import askers, gates, statements, steps

DEFECTS: Mapping[str, Callable[[Agent], None]] = {**statements.DEFECTS, **steps.DEFECTS, **gates.DEFECTS}


def mutate(name: str, agent: Agent) -> None:
    """Break the product in the named way, in this process; one of those that ask leaves a worker whole.

    Raises:
        LookupError: If there is no such defect, or the product no longer has the place where it would be.
    """
    if name not in askers.DEFECTS:
        DEFECTS[name](agent)

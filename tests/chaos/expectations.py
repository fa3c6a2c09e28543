"""What becomes of a cell's job, beyond what the checker asks of every job: how much doubt its death excuses."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from producer.ledger.states import CLOSED, State

if TYPE_CHECKING:
    from tests.chaos.cell import Cell
    from tests.chaos.evidence import Effect

# Classes whose jobs stay in doubt until a person speaks.
DOUBTED: AbstractSet[Effect] = {"unsafe"}
# The outcome is in the ledger by then, and no death takes it back.
SETTLED = {"settle.committed", "ack.before", "ack.after"}
# Whoever dies so has lost its lease for certain; the others may keep it.
LOSES_ITS_LEASE = {"sigkill", "group_kill", "child_kill", "sigstop"}


def at_rest(effect: Effect) -> AbstractSet[State]:
    """Return the states out of which nobody but a person moves a job of this class."""
    return CLOSED | ({State.IN_DOUBT} if effect in DOUBTED else set())


def ends(cell: Cell) -> AbstractSet[State]:
    """Return the states in which a cell's job may end."""
    point = cell.point
    if cell.effect not in DOUBTED or (not point.drops and (not point.intended or point.name in SETTLED)):
        return {State.SUCCEEDED}
    if point.drops or point.dies == "rescuer" or (cell.death in LOSES_ITS_LEASE and not point.goes_on):
        return {State.IN_DOUBT}
    return {State.SUCCEEDED, State.IN_DOUBT}

"""What each kind of fault does, and how one sees that somebody felt it.

A function here takes the stage, what was planned, and the strike whose begin and details it notes. It leaves everything
as it found it, and returns whether the fault has bitten: None where nobody can say. What it raises is an oddity of the
storm's, and the fault has not bitten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.chaos.storm.faults import links, postgres, postgres_locks, processes, producers, redis, rings, world
from tests.chaos.storm.notes import Strike
from tests.chaos.storm.stage import Stage

Fault = Callable[[Stage, Strike], bool | None]

FAULTS: Mapping[str, Fault] = {
    **processes.FAULTS,
    **producers.FAULTS,
    **redis.FAULTS,
    **postgres.FAULTS,
    **postgres_locks.FAULTS,
    **links.FAULTS,
    **rings.FAULTS,
    **world.FAULTS,
}

"""How far this worker has served each queue, by the ledger's clock.

Rings of one priority leave a queue in the order in which they came. So once the ring of a job is answered that became
due later than another, that other's ring is in the queue no more: it got lost, or was taken by somebody who could not
answer it, or who has not come to it yet. In a queue that is never empty nothing else tells.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from worker.attempt import Attempt

# Rings of several producers may be late for one another by so long. To ring once too often costs a look at a job.
APART_SECONDS = 2.0


class Served:
    """Of each queue and priority, when the newest job had become due that was claimed at its first ring.

    One thread notes, any other may ask.
    """

    def __init__(self) -> None:
        """Know of none."""
        self._due: dict[tuple[str, int], float] = {}

    def note(self, attempts: Iterable[Attempt]) -> None:
        """Take over what has just been claimed. A job that somebody had before may have come by other ways."""
        now = time.monotonic()
        for attempt in attempts:
            if attempt.fence == 1:
                due, of = now - attempt.late_seconds, (attempt.queue, attempt.priority)
                if due > self._due.get(of, float("-inf")):
                    self._due[of] = due

    def is_past(self, queue: str, priority: int, late_seconds: float) -> bool:
        """Whether a job that is due for so long would have been served, had its ring been there."""
        newest = self._due.get((queue, priority))
        return newest is not None and newest - (time.monotonic() - late_seconds) > APART_SECONDS

"""How far this worker has served each queue, by the ledger's clock.

Rings of one priority leave a queue in the order in which they came. So once the ring of a job is answered that became
due later than another, that other's ring is in the queue no more: it got lost, or was taken by somebody who could not
answer it, or who has not come to it yet. In a queue that is never empty nothing else tells.
"""

from __future__ import annotations

import mmap
import time
from array import array
from collections.abc import Iterable
from functools import lru_cache
from math import inf
from zlib import crc32

from worker.attempt import Attempt

# Rings of several producers may be late for one another by so long. To ring once too often costs a look at a job.
APART_SECONDS = 2.0
# Queues and priorities that happen to share a place are taken for one, which rings for the slower of them too often.
PLACES = 2**16


class Served:
    """Of each queue and priority, when the newest job had become due that was claimed at its first ring.

    Made before a worker forks, it is one for all of its processes: children note, and the relay asks. Where two note at
    once, the older may remain, and the next job mends that.
    """

    def __init__(self) -> None:
        """Know of none."""
        # In memory that forks share, by a clock that they share.
        self._due = memoryview(mmap.mmap(-1, 8 * PLACES)).cast("d")
        self._due[:] = array("d", [-inf]) * PLACES

    def note(self, attempts: Iterable[Attempt]) -> None:
        """Take over what has just been claimed. A job that somebody had before may have come by other ways."""
        now = time.monotonic()
        for attempt in attempts:
            if attempt.fence == 1:
                due, place = now - attempt.late_seconds, _place(attempt.queue, attempt.priority)
                self._due[place] = max(self._due[place], due)

    def is_past(self, queue: str, priority: int, late_seconds: float) -> bool:
        """Whether a job that is due for so long would have been served, had its ring been there."""
        return self._due[_place(queue, priority)] - (time.monotonic() - late_seconds) > APART_SECONDS


@lru_cache(1024)
def _place(queue: str, priority: int) -> int:
    return crc32(f"{queue} {priority}".encode()) % PLACES

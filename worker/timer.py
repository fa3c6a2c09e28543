"""Rings at the right moment: a retry is rung by the process that scheduled it, to the millisecond.

If that process dies first, the relay of any other rings the job a moment later: the due time is in the ledger.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time

from producer.ring import Bell, Ring

# Beyond this, the ring is the relay's: a timer that long would only die with its process.
LONGEST_SECONDS = 120.0


class RingTimer:
    """A heap of rings to come, and one daemon thread that sleeps until the first of them."""

    def __init__(self, bell: Bell) -> None:
        """Start nothing yet."""
        self._bell = bell
        self._heap: list[tuple[float, int, Ring]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def ring_in(self, seconds: float, ring: Ring) -> None:
        """Ring in `seconds`, at most two minutes; longer ones are the relay's."""
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._order), ring))
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="ring-timer", daemon=True)
                thread.start()
                self._thread = thread
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._heap:
                    self._changed.wait()
                pause = self._heap[0][0] - time.monotonic()
                if pause > 0:
                    self._changed.wait(pause)
                    continue
                ring = heapq.heappop(self._heap)[2]
            self._bell.ring([ring])

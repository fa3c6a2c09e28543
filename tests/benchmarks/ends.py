"""When the last job has ended: seen where the peer has it on record, and not before the broker's queue is empty."""

from __future__ import annotations

import time

from tests.benchmarks.clients import Client

# Looking takes a core's time from those who are measured; at this pace, about one percent of it.
LOOK_SECONDS = 0.02
STALLED_SECONDS = 60.0


class Stalled(Exception):
    """A worker stopped working, or did not record what it did: the figures would be worth nothing."""


def until_ended(client: Client, *, look_seconds: float = LOOK_SECONDS) -> float:
    """Wait until everything that was enqueued has ended; return when that was first seen, on `time.perf_counter`.

    Raises:
        Stalled: If nothing ends for a minute.
    """
    reached: float | None = None
    changed, before = time.perf_counter(), -1
    with client.watching() as look:
        while True:
            left, now = look(), time.perf_counter()
            if left:
                reached = None
            elif reached is None:
                reached = now
            else:
                return reached  # seen twice: a message on its way to a worker is nowhere for a moment
            if left != before:
                changed, before = now, left
            elif now - changed > STALLED_SECONDS:
                raise Stalled(f"{left} are left and nothing has ended for {STALLED_SECONDS:g} s")
            time.sleep(look_seconds)

"""Noticing an action that keeps the event loop to itself, as one that sleeps or computes where it should await does.

Leases are renewed by a thread of their own, so nothing is lost by it; but every other action of the process stands
still, and nobody could say why.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback

from worker.log import log
from worker.meter import meter

# The loop is asked so often, and once it does not answer, its stack is looked at again as often.
LOOK_SECONDS = 0.25
FRAMES = 20


class Watchdog:
    """One daemon thread beside a loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, loop_thread: threading.Thread, *, after_seconds: float) -> None:
        """Watch `loop`; a word is said once it has not answered for `after_seconds`."""
        self._loop, self._thread, self._after = loop, loop_thread, after_seconds
        self._answered = threading.Event()

    def start(self) -> None:
        """Watch until the process ends."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def _run(self) -> None:
        while not self._loop.is_closed():
            self._answered.clear()
            asked_at = time.monotonic()
            self._loop.call_soon_threadsafe(self._answered.set)
            if not self._answered.wait(self._after):
                self._tell_who()
                self._answered.wait()
                log.warning("loop.free", seconds=round(time.monotonic() - asked_at, 3))
            meter().loop_answered(time.monotonic() - asked_at)
            time.sleep(LOOK_SECONDS)

    def _tell_who(self) -> None:
        task = asyncio.current_task(self._loop)
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001  the only way to another's stack
        stack = "".join(traceback.format_stack(frame, FRAMES)) if frame else ""
        log.warning("loop.blocked", by=task.get_name() if task else None, seconds=self._after, stack=stack)

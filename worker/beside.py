"""Attempts beside Celery's tasks: for jobs that have been given a place in this very process, and a ring elsewhere.

A ring is anybody's to answer, and a worker that has no place would only hold the job again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextvars import Context
from typing import Any
from uuid import UUID

from producer.ring import Ring
from worker.doubt import Ended
from worker.log import log
from worker.loop import CutOff, cut_off


class Beside:
    """What runs so in one process. To be used on its loop."""

    def __init__(self, run: Callable[[str, Sequence[UUID]], Coroutine[Any, Any, list[Ended]]]) -> None:
        """Run nothing yet; `run` is the runner's."""
        self._run = run
        self._running: dict[asyncio.Task[list[Ended]], CutOff] = {}

    def __len__(self) -> int:
        """How many run."""
        return len(self._running)

    def begin(self, rings: Iterable[Ring]) -> None:
        """Try these jobs, each for itself; return at once."""
        for ring in rings:
            cut = CutOff()
            context = Context()  # not that of the attempt whose end has made room
            context.run(cut_off.set, cut)
            task = asyncio.get_running_loop().create_task(self._run(ring.action, [ring.job_id]), context=context)
            self._running[task] = cut
            task.add_done_callback(self._ended)

    def cut_off(self) -> None:
        """Cut all of them off, so that others can take the jobs."""
        for task, cut in self._running.items():
            cut.reason = "stopping"
            task.cancel()

    def _ended(self, task: asyncio.Task[list[Ended]]) -> None:
        del self._running[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("attempt.lost", error=str(error), error_type=type(error).__name__)

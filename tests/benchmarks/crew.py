"""Which worker processes serve a peer."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from worker.start import ALONE

# Ours, by the name that Celery has for pools that are not its own.
ASYNCIO = "custom"
PREFORK = "prefork"
WARM_JOBS = 100


@dataclass(frozen=True, slots=True)
class Crew:
    """Workers that share a queue.

    Attributes:
        pool: Celery's name of it.
        processes: Workers that are started.
        concurrency: Of each.
        slowness: How much longer than usual they take to start and to end, at most.
    """

    pool: str
    processes: int
    concurrency: int
    slowness: float = 1.0

    def __str__(self) -> str:
        return f"{self.processes} of `-P {self.pool} -c {self.concurrency}`"

    @property
    def warm_jobs(self) -> int:
        """How many jobs one worker must have ended before all of its processes are warm."""
        return WARM_JOBS * (self.concurrency if self.pool == PREFORK else 1)

    def command(self, app: str, number: int) -> list[str]:
        """Return the command of one of the workers; the same for every peer but for the app and the pool."""
        pool = ["-P", self.pool, "-c", str(self.concurrency)]
        return [sys.executable, "-m", "celery", "-A", app, "worker", *pool, "-l", "info", *ALONE, "-n", f"w{number}@%h"]


ASYNCIO_2 = Crew(ASYNCIO, 2, 200)
PREFORK_2 = Crew(PREFORK, 1, 2)
# Threads of one process share one lock, so either one process or two may be the better; both are tried.
THREADS_1 = Crew("threads", 1, 10)
THREADS_2 = Crew("threads", 2, 5)

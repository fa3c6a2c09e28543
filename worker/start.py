"""How a worker is started: Celery's own command, with the asyncio pool unless another one is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence

# How Celery finds a pool that is not its own, as `--pool custom`.
POOL_ENVIRONMENT = {"CELERY_CUSTOM_WORKER_POOL": "worker.pool:TaskPool"}
# Jobs in flight in one process. Waiting costs next to nothing; but what one worker took, no other can do.
CONCURRENCY = 200
# Workers need not know of each other: the ledger is what they share.
ALONE = ("--without-gossip", "--without-mingle")


def worker_command(options: Sequence[str]) -> list[str]:
    """Return the command of a worker with these options of Celery's, to be run with `POOL_ENVIRONMENT`."""
    command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", *ALONE]
    if not _names(options, "-P", "--pool", but="--pool-"):
        command += ["--pool", "custom"]
        if not _names(options, "-c", "--concurrency"):
            command += ["--concurrency", str(CONCURRENCY)]
    return [*command, *options]


def _names(options: Sequence[str], *beginnings: str, but: str = "\0") -> bool:
    return any(option.startswith(beginnings) and not option.startswith(but) for option in options)

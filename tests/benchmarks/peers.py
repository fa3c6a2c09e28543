"""Those who are measured: how each enqueues, which worker serves it, and where its results stand."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from kombu import pools

from producer import Producer, Settings
from producer.envelope import Request
from tests.benchmarks import bare
from tests.benchmarks.stage import ACTIONS, Stage

BATCH = 1_000
WAIT_SECONDS = 30.0
# Celery's fixed polling interval. Surefoot's looks begin at this one and grow, so the finer grain is Celery's.
POLL_SECONDS = 0.002

Wait = Callable[[], Any]


class Client(ABC):
    """One peer's producer on one stage.

    Attributes:
        stage: Where it plays.
        queue: The Redis list that its messages wait in.
        app: What its worker is started with.
    """

    queue: str
    app: str

    def __init__(self, stage: Stage) -> None:
        """Connect nothing yet."""
        self.stage = stage

    @abstractmethod
    def enqueue(self, number: int) -> Wait:
        """Enqueue one no-op; what is returned waits for its result and returns it."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Return what the worker is told."""

    @abstractmethod
    def recorded(self, log: Path) -> int:
        """Return how many no-ops have their success on record; `log` is the worker's."""

    def close(self) -> None:
        """Close every connection."""
        # Celery's connection pools belong to the process, not to the app: the next client shall not find them warm.
        pools.reset()

    def enqueue_all(self, count: int) -> None:
        """Enqueue `count` no-ops, as fast as this peer can."""
        for number in range(count):
            self.enqueue(number)


class SurefootClient(Client):
    """Surefoot, with one of the benchmark's actions."""

    queue = "actions"
    app = "worker.app"

    def __init__(self, stage: Stage, action: str) -> None:
        """Connect nothing yet."""
        super().__init__(stage)
        self.action = action
        self.producer = Producer(Settings(database_url=stage.database_url, redis_url=stage.redis_url))

    def enqueue(self, number: int) -> Wait:
        """Accept and ring one job."""
        job = self.producer.enqueue(self.action, {"number": number}, idempotency_key=f"one-{number}")
        return lambda: job.get(WAIT_SECONDS)

    def enqueue_all(self, count: int) -> None:
        """Accept and ring jobs in batches."""
        for first in range(0, count, BATCH):
            self.producer.enqueue_many(self.requests(first, min(count, first + BATCH)))

    def requests(self, first: int, end: int) -> list[Request]:
        """Return the batch of jobs that bear these numbers."""
        return [
            Request(action=self.action, params={"number": number}, idempotency_key=f"many-{number}")
            for number in range(first, end)
        ]

    def environment(self) -> dict[str, str]:
        """Return a worker's settings: the defaults, and JSON lines at the level that Celery's peers log at."""
        return {
            "SUREFOOT_DATABASE_URL": self.stage.database_url,
            "SUREFOOT_REDIS_URL": self.stage.redis_url,
            "SUREFOOT_ACTION_MODULES": ACTIONS,
            "SUREFOOT_LOG": "json",
            "SUREFOOT_LOG_LEVEL": "info",
        }

    def recorded(self, log: Path) -> int:  # noqa: ARG002  the ledger is the record
        """Count succeeded jobs in the ledger."""
        return int(self.stage.query("SELECT count(*) FROM jobs WHERE state = 'succeeded'")[0][0])

    def close(self) -> None:
        """Close the producer."""
        self.producer.close()
        super().close()


class CeleryClient(Client):
    """Bare Celery; `backend` is None (no results), ``db`` or ``redis``."""

    queue = bare.QUEUE
    app = "tests.benchmarks.bare"

    def __init__(self, stage: Stage, backend: str | None) -> None:
        """Connect nothing yet."""
        super().__init__(stage)
        self.backend = backend
        urls = {"db": "db+" + stage.database_url, "redis": stage.results_url}
        self.backend_url = urls[backend] if backend else ""
        self.celery = bare.make_app(stage.redis_url, self.backend_url)

    def enqueue(self, number: int) -> Wait:
        """Publish one task."""
        result = self.celery.send_task(bare.NOOP, kwargs={"number": number})
        return lambda: result.get(timeout=WAIT_SECONDS, interval=POLL_SECONDS)

    def environment(self) -> dict[str, str]:
        """Return what bare.py reads."""
        return {bare.BROKER: self.stage.redis_url, bare.BACKEND: self.backend_url}

    def recorded(self, log: Path) -> int:
        """Count results where the backend keeps them; without one, the worker's log lines."""
        if self.backend == "db":
            return int(self.stage.query("SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'")[0][0])
        if self.backend == "redis":
            with redis.Redis.from_url(self.stage.results_url) as client:
                return sum(1 for _ in client.scan_iter("celery-task-meta-*", count=1000))
        return log.read_text(errors="replace").count(" succeeded in ")

    def close(self) -> None:
        """Close the app's connections."""
        self.celery.close()
        super().close()


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody to measure.

    Attributes:
        name: As the report calls it.
        client: Makes its producer on a stage.
        has_results: Whether a result can be waited for.
        enqueues: Whether enqueueing is timed, too. Once a side: where results go makes no difference to it.
    """

    name: str
    client: Callable[[Stage], Client]
    has_results: bool = True
    enqueues: bool = False


PURE = Peer("Surefoot, `pure` action", lambda stage: SurefootClient(stage, "bench.pure"), enqueues=True)
UNSAFE = Peer("Surefoot, `unsafe` action", lambda stage: SurefootClient(stage, "bench.unsafe"))
CELERY = Peer("Celery, no results", lambda stage: CeleryClient(stage, None), has_results=False, enqueues=True)
CELERY_DB = Peer("Celery, `db+postgresql` results", lambda stage: CeleryClient(stage, "db"))
CELERY_REDIS = Peer("Celery, Redis results", lambda stage: CeleryClient(stage, "redis"))
PEERS = (PURE, CELERY, CELERY_DB, UNSAFE, CELERY_REDIS)


def worker_command(app: str) -> list[str]:
    """Return the command of a worker; the same for every peer but for the app."""
    pool = ["-P", "prefork", "-c", "2"]
    quiet = ["--without-mingle", "--without-gossip"]
    return [sys.executable, "-m", "celery", "-A", app, "worker", *pool, "-l", "info", *quiet, "-n", "bench@%h"]


def worker_environment(client: Client) -> dict[str, str]:
    """Return the environment of a peer's worker: this process's, and what the peer tells it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SUREFOOT_", "BARE_"))}
    return inherited | client.environment()

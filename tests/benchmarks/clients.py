"""How each of those who are measured enqueues, and where what it has done stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg2
import redis
from kombu import pools
from uuid_utils.compat import uuid7

from producer import Producer, Settings
from producer.envelope import Request
from producer.ledger.states import LEASED, RINGABLE, in_sql
from producer.ring import Bell, Ring
from tests.benchmarks import bare
from tests.benchmarks.stage import ACTIONS, Stage

BATCH = 1_000
WAIT_SECONDS = 30.0
# How often Celery looks for a result in its database, where nobody wakes it; left to itself, twice a second.
POLL_SECONDS = 0.002
# Each has a partial index, which holds the few jobs on their way, so that looking costs the same in a ledger of any
# size. Without sequential scans, which a table that was never analysed invites.
OPEN = f"""
SET enable_seqscan = off;
SELECT EXISTS (SELECT FROM jobs WHERE state IN ({in_sql(RINGABLE)}))
    OR EXISTS (SELECT FROM jobs WHERE state IN ({in_sql(LEASED)}))
"""
# The transport keeps what was delivered and not yet acknowledged in this hash.
UNACKED = "unacked"
# It keeps one list for each of these priorities, the first under the queue's own name.
PRIORITY_STEPS = ("", "\x06\x163", "\x06\x166", "\x06\x169")

Wait = Callable[[], Any]


class Client(ABC):
    """One peer's producer on one stage.

    Attributes:
        stage: Where it plays.
        queue: The Redis list that its messages wait in.
        app: What its workers are started with.
        end_mark: What stands in a worker's log once for each job that ended well.
    """

    queue: str
    app: str
    end_mark: str

    def __init__(self, stage: Stage) -> None:
        """Connect nothing yet."""
        self.stage = stage

    @abstractmethod
    def enqueue(self, number: int) -> Wait:
        """Enqueue one job; what is returned waits for its result and returns it."""

    def enqueue_all(self, first: int, count: int) -> None:
        """Enqueue `count` jobs from one thread, as fast as this peer can; return when all are with the broker."""
        for number in range(first, first + count):
            self.enqueue(number)
        self.flush()

    @abstractmethod
    def flush(self) -> None:
        """Wait until everything enqueued so far is with the broker."""

    @abstractmethod
    def watching(self) -> AbstractContextManager[Callable[[], int]]:
        """Give what says how much has not ended yet: in whatever unit, but 0 when, and only when, all has."""

    @abstractmethod
    def recorded(self, logs: Iterable[Path]) -> int:
        """Return how many of this client's jobs have their success on record; `logs` are the workers'."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Return what the workers are told."""

    def close(self) -> None:
        """Close every connection."""
        # Celery's connection pools belong to the process, not to the app: the next client shall not find them warm.
        pools.reset()

    def ended_in(self, log: Path) -> int:
        """Return how many jobs ended well by a worker's log."""
        return log.read_text(errors="replace").count(self.end_mark)


class LoneRings(Bell):
    """Rings for each job by a message of its own, however many wait."""

    def ring(self, rings: Iterable[Ring]) -> None:
        """Have rings published, none of them together with another."""
        super().ring([replace(ring, together=1) for ring in rings])


class SurefootClient(Client):
    """Surefoot, with one of the benchmark's actions."""

    queue = "actions"
    app = "worker.app"
    end_mark = '"attempt.settled"'

    def __init__(self, stage: Stage, action: str, *, lone_rings: bool = False) -> None:
        """Connect nothing yet; rings go out as ever, or with `lone_rings` one for each job."""
        super().__init__(stage)
        self.action = action
        settings = Settings(database_url=stage.database_url, redis_url=stage.redis_url)
        bell = LoneRings(settings.redis_url, timeout_seconds=settings.ring_timeout_seconds) if lone_rings else None
        self.producer = Producer(settings, bell=bell)
        # Ids are in the order of time, so this client's jobs are those that come after.
        self._before = uuid7()

    def enqueue(self, number: int) -> Wait:
        """Accept one job, and have it rung."""
        job = self.producer.enqueue(self.action, {"number": number}, idempotency_key=str(uuid4()))
        return lambda: job.get(WAIT_SECONDS)

    def enqueue_all(self, first: int, count: int) -> None:
        """Accept and ring jobs in batches."""
        for requests in self.batches(first, count):
            self.producer.enqueue_many(requests)
        self.flush()

    def batches(self, first: int, count: int) -> Iterator[Sequence[Request]]:
        """Yield batches of requests that bear the numbers from `first` on.

        Keys are scattered, as most people's are: a job's updates touch the key's index, wherever the key lies in it.
        """
        for start in range(first, first + count, BATCH):
            yield [
                Request(action=self.action, params={"number": number}, idempotency_key=str(uuid4()))
                for number in range(start, min(first + count, start + BATCH))
            ]

    def flush(self) -> None:
        """Wait until every accepted job was rung."""
        self.producer.flush()

    @contextmanager
    def watching(self) -> Iterator[Callable[[], int]]:
        """Look for messages that wait, and after the last of them at jobs that are open in the ledger.

        What a worker has taken up is in its own memory alone, so the broker knows nothing of it.
        """
        with redis.Redis.from_url(self.stage.redis_url) as broker, closing(self.stage.connect()) as ledger:
            yield lambda: _messages(broker, self.queue) or _open_jobs(ledger)

    def recorded(self, logs: Iterable[Path]) -> int:  # noqa: ARG002  the ledger is the record
        """Count succeeded jobs in the ledger."""
        succeeded = f"SELECT count(*) FROM jobs WHERE id > '{self._before}' AND state = 'succeeded'"
        return int(self.stage.query(succeeded)[0][0])

    def environment(self) -> dict[str, str]:
        """Return a worker's settings: the defaults, and JSON lines at the level that Celery's peers log at."""
        return {
            "SUREFOOT_DATABASE_URL": self.stage.database_url,
            "SUREFOOT_REDIS_URL": self.stage.redis_url,
            "SUREFOOT_ACTION_MODULES": ACTIONS,
            "SUREFOOT_LOG": "json",
            "SUREFOOT_LOG_LEVEL": "info",
        }

    def close(self) -> None:
        """Close the producer."""
        self.producer.close()
        super().close()


class CeleryClient(Client):
    """Bare Celery; `backend` is None (no results), ``db`` or ``redis``."""

    queue = bare.QUEUE
    app = "tests.benchmarks.bare"
    end_mark = " succeeded in "

    def __init__(self, stage: Stage, backend: str | None, *, task: str = bare.NOOP) -> None:
        """Connect nothing yet."""
        super().__init__(stage)
        self.backend, self.task = backend, task
        urls = {"db": "db+" + stage.database_url, "redis": stage.results_url}
        self.backend_url = urls[backend] if backend else ""
        self.celery = bare.make_app(stage.redis_url, self.backend_url)

    def enqueue(self, number: int) -> Wait:
        """Publish one task."""
        result = self.celery.send_task(self.task, kwargs={"number": number})
        return lambda: result.get(timeout=WAIT_SECONDS, interval=POLL_SECONDS)

    def flush(self) -> None:
        """Do nothing: what `send_task` publishes is in Redis when it returns."""

    @contextmanager
    def watching(self) -> Iterator[Callable[[], int]]:
        """Look for messages that wait or are not yet acknowledged.

        With late acknowledgement a message is gone when, and only when, all that is recorded of its task has been.
        """
        with redis.Redis.from_url(self.stage.redis_url) as broker:
            yield lambda: _messages(broker, self.queue)

    def recorded(self, logs: Iterable[Path]) -> int:
        """Count results where the backend keeps them; without one, the workers' log lines."""
        if self.backend == "db":
            return int(self.stage.query("SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'")[0][0])
        if self.backend == "redis":
            with redis.Redis.from_url(self.stage.results_url) as client:
                return sum(1 for _ in client.scan_iter("celery-task-meta-*", count=1000))
        return sum(map(self.ended_in, logs))

    def environment(self) -> dict[str, str]:
        """Return what bare.py reads."""
        return {bare.BROKER: self.stage.redis_url, bare.BACKEND: self.backend_url}

    def close(self) -> None:
        """Close the app's connections."""
        self.celery.close()
        super().close()


def _messages(broker: redis.Redis, queue: str) -> int:
    """Return how many messages wait in the queue or are, by the broker's account, not yet acknowledged."""
    pipeline = broker.pipeline(transaction=True)
    for step in PRIORITY_STEPS:
        pipeline.llen(queue + step)
    pipeline.hlen(UNACKED)
    return sum(int(count) for count in pipeline.execute())


def _open_jobs(ledger: psycopg2.extensions.connection) -> int:
    """Return 1 while there are jobs that have not ended, 0 then."""
    with ledger.cursor() as cursor:
        cursor.execute(OPEN)
        return int(cursor.fetchone()[0])

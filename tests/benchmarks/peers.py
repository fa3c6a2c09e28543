"""Those who are measured: each a way to enqueue, and the worker processes that serve it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.benchmarks.clients import CeleryClient, Client, SurefootClient
from tests.benchmarks.crew import ASYNCIO_2, PREFORK_2, THREADS_1, Crew
from tests.benchmarks.stage import Stage


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody to measure.

    Attributes:
        name: As the report calls it.
        client: Makes its producer on a stage.
        crew: The worker processes that serve it.
    """

    name: str
    client: Callable[[Stage], Client]
    crew: Crew

    @contextmanager
    def on(self, stage: Stage) -> Iterator[Client]:
        """Give this peer's producer, and close it."""
        client = self.client(stage)
        try:
            yield client
        finally:
            client.close()


def _pure(stage: Stage) -> Client:
    return SurefootClient(stage, "bench.pure")


def _pure_lone(stage: Stage) -> Client:
    return SurefootClient(stage, "bench.pure", lone_rings=True)


def _unsafe(stage: Stage) -> Client:
    return SurefootClient(stage, "bench.unsafe")


def _unsafe_lone(stage: Stage) -> Client:
    return SurefootClient(stage, "bench.unsafe", lone_rings=True)


def _celery(stage: Stage) -> Client:
    return CeleryClient(stage, None)


# Surefoot as it comes: one ring for up to a hundred jobs where so many are accepted together.
SUREFOOT = Peer("Surefoot, `pure`", _pure, ASYNCIO_2)
UNSAFE = Peer("Surefoot, `unsafe`", _unsafe, ASYNCIO_2)
LONE = Peer("Surefoot, `pure`, a ring for each job", _pure_lone, ASYNCIO_2)
LONE_UNSAFE = Peer("Surefoot, `unsafe`, a ring for each job", _unsafe_lone, ASYNCIO_2)
LONE_PREFORK = Peer("Surefoot, `pure`, a ring for each job, prefork", _pure_lone, PREFORK_2)
CELERY = Peer("Celery, no results", _celery, PREFORK_2)
CELERY_DB = Peer("Celery, `db+postgresql` results", lambda stage: CeleryClient(stage, "db"), PREFORK_2)
CELERY_REDIS = Peer("Celery, Redis results", lambda stage: CeleryClient(stage, "redis"), PREFORK_2)
CELERY_THREADS = Peer("Celery, no results, threads", _celery, THREADS_1)

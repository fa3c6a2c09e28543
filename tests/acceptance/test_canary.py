"""A worker that is given nothing any more ends; one that has all it can do, or whose broker is away, does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
import redis

from producer import Producer, Settings
from tests.houses import ACTION_MODULES, WorkerProcess, start_worker, until
from worker.dev.servers import Valkey

SECONDS = 30.0
DEAF_SECONDS = 1.0
QUICK: Mapping[str, str] = {
    "SUREFOOT_ACTION_MODULES": ",".join((*ACTION_MODULES, "tests.deaf_actions")),
    "SUREFOOT_CANARY_SECONDS": "0.2",
    "SUREFOOT_DEAF_SECONDS": f"{DEAF_SECONDS:g}",
}


def quick_worker(settings: Settings, folder: Path, *, pool: str = "custom", concurrency: int = 2) -> WorkerProcess:
    return start_worker(settings, folder / "worker.log", pool=pool, concurrency=concurrency, environment=QUICK)


@pytest.mark.parametrize("pool", ["custom", "threads"])
def test_a_worker_that_went_deaf_says_so_and_ends_and_its_jobs_are_another_s(
    settings: Settings, tmp_path: Path, pool: str
) -> None:
    worker = quick_worker(settings, tmp_path, pool=pool)
    producer = Producer(settings)
    try:
        producer.enqueue("deaf.become", {}).get(SECONDS)
        worker.process.wait(SECONDS)
        assert worker.process.returncode == 0
        (line,) = worker.events("worker.deaf")
        assert line["level"] == "error"
        assert line["for_seconds"] >= DEAF_SECONDS
        assert [line["signal"] for line in worker.events("worker.stopping")] == ["SIGTERM"]
        job = producer.enqueue("test.add", {"a": 1, "b": 2})
        worker = quick_worker(settings, tmp_path / "..", pool=pool)
        assert job.get(SECONDS) == {"total": 3}
    finally:
        producer.close()
        worker.stop()


def test_a_worker_that_has_taken_up_all_it_may_is_not_deaf(
    settings: Settings, lone_producer: Producer, tmp_path: Path
) -> None:
    worker = quick_worker(settings, tmp_path, concurrency=1)
    try:
        gate = tmp_path / "gate"
        job = lone_producer.enqueue("test.effect", {"log": str(tmp_path / "log"), "wait_for": str(gate)})
        until((tmp_path / "log").exists)
        until(lambda: job.refresh().record.age > 4 * DEAF_SECONDS)
        gate.touch()
        assert job.get(SECONDS) == 1
        assert lone_producer.enqueue("test.add", {"a": 1, "b": 2}).get(SECONDS) == {"total": 3}
        assert worker.events("worker.deaf") == []
    finally:
        worker.stop()


def test_a_worker_whose_broker_is_away_for_longer_than_that_is_not_deaf(
    settings: Settings, lone_producer: Producer, tmp_path: Path
) -> None:
    with Valkey(tmp_path / "redis") as valkey:
        own = Settings(database_url=settings.database_url, redis_url=valkey.url)
        producer = Producer(own)
        worker = quick_worker(own, tmp_path)
        try:
            assert producer.enqueue("test.add", {"a": 1, "b": 1}).get(SECONDS) == {"total": 2}
            valkey.kill()
            meanwhile = lone_producer.enqueue("test.add", {"a": 1, "b": 2})
            until(lambda: meanwhile.refresh().record.age > 4 * DEAF_SECONDS)
            valkey.start()
            assert meanwhile.get(SECONDS) == {"total": 3}
            assert worker.events("worker.deaf") == []
            # It listens over the new connection, too.
            assert producer.enqueue("deaf.become", {}).get(SECONDS) is None
            worker.process.wait(SECONDS)
            assert len(worker.events("worker.deaf")) == 1
        finally:
            worker.stop()
            producer.close()


def test_a_worker_that_stood_still_for_longer_than_that_goes_on(
    settings: Settings, lone_producer: Producer, tmp_path: Path
) -> None:
    worker = quick_worker(settings, tmp_path)
    try:
        frozen = psutil.Process(worker.pid)
        frozen.suspend()
        job = lone_producer.enqueue("test.add", {"a": 1, "b": 2})
        until(lambda: job.refresh().record.age > 2 * DEAF_SECONDS)
        frozen.resume()
        assert job.get(SECONDS) == {"total": 3}
        until(lambda: job.refresh().record.age > 5 * DEAF_SECONDS)
        assert worker.events("worker.deaf") == []
    finally:
        worker.stop()


def test_what_a_worker_sends_to_itself_is_on_no_shelf_when_it_has_ended(settings: Settings, tmp_path: Path) -> None:
    worker = quick_worker(settings, tmp_path)
    with redis.Redis.from_url(settings.redis_url) as client:
        # Its queue is made by the first message and gone with the last, so what is asked for is that it is read.
        until(lambda: client.info("commandstats").get("cmdstat_expire", {}).get("calls", 0))
        assert worker.stop() == 0
        assert list(client.scan_iter("canary*")) == []

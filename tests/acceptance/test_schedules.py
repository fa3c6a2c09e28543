"""Schedules and real workers: each tick is one job, performed, however many workers there are and whichever dies."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from producer import Producer, Settings, State
from producer.ledger.schedules import ScheduleRecord
from producer.ticks import spelled
from tests.houses import WorkerProcess, start_worker, until

MODULES = {"SUREFOOT_ACTION_MODULES": "tests.schedule_actions"}
SECONDS = 40.0


@pytest.fixture
def two_workers(settings: Settings, tmp_path: Path) -> Iterator[list[WorkerProcess]]:
    workers = []
    try:
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            workers.append(start_worker(settings, tmp_path / name / "worker.log", environment=MODULES))
        yield workers
    finally:
        for worker in workers:
            worker.stop()


def ticked(producer: Producer, name: str, count: int) -> ScheduleRecord:
    """Wait until a schedule has made so many more ticks' jobs."""
    begin = producer.schedules.get(name).next_tick

    def is_there() -> ScheduleRecord | None:
        found = producer.schedules.get(name)
        return found if found.next_tick >= begin + timedelta(seconds=count) else None

    found = until(is_there, seconds=SECONDS)
    assert found is not None
    return found


@pytest.mark.timeout(240)
def test_each_tick_is_one_job_with_two_workers_and_after_one_of_them_is_killed(
    engine: Engine, producer: Producer, two_workers: list[WorkerProcess], tmp_path: Path
) -> None:
    log = tmp_path / "beats"
    first = producer.schedules.add("beat", "test.beat", {"log": str(log)}, every=1, missed="all").next_tick
    ticked(producer, "beat", 4)
    two_workers[0].kill()
    ticked(producer, "beat", 4)
    producer.schedules.pause("beat")
    until(lambda: all(job.state is State.SUCCEEDED for job in producer.jobs(limit=100)), seconds=SECONDS)
    with engine.connect() as connection:
        keys = list(connection.execute(text("SELECT idempotency_key FROM jobs ORDER BY idempotency_key")).scalars())
    last = producer.schedules.get("beat").last_tick
    assert last is not None
    expected = [first + timedelta(seconds=n) for n in range(round((last - first).total_seconds()) + 1)]
    assert keys == [f"schedule:beat:{spelled(tick)}" for tick in expected]
    assert len(expected) >= 8
    performed = {line.split()[0] for line in log.read_text().splitlines()}
    assert performed == set(keys)


@pytest.mark.timeout(240)
def test_a_tick_is_made_in_time_however_rarely_the_relay_looks(
    settings: Settings, lone_producer: Producer, tmp_path: Path
) -> None:
    worker = start_worker(settings, tmp_path / "worker.log", environment=MODULES | {"SUREFOOT_RELAY_SECONDS": "60"})
    try:
        lone_producer.schedules.add("beat", "test.beat", {"log": str(tmp_path / "beats")}, every=1)
        ticked(lone_producer, "beat", 4)
        lone_producer.schedules.pause("beat")
    finally:
        worker.stop()
    lateness = [job.record.accepted_at - tick_of(job.record.idempotency_key) for job in lone_producer.jobs()]
    assert len(lateness) >= 4
    assert min(lateness) < timedelta(seconds=0.5)
    assert min(lateness) >= timedelta(0)  # never before its time


@pytest.mark.timeout(240)
def test_what_code_declares_is_published_by_each_worker_and_ticked_once(
    producer: Producer, two_workers: list[WorkerProcess]
) -> None:
    found = producer.schedules.get("declared.nightly")
    assert (found.declared_by, found.declared_in) == ("code", "tests.schedule_actions")
    assert [worker.events("schedule.withdrawn") for worker in two_workers] == [[], []]
    ahead = producer.schedules.next_ticks("declared.nightly", 3)
    assert ahead[0] == found.next_tick
    assert all(timedelta(hours=23) <= later - tick <= timedelta(hours=25) for tick, later in pairwise(ahead))


def tick_of(key: str) -> datetime:
    return datetime.fromisoformat(key.split(":", 2)[2])

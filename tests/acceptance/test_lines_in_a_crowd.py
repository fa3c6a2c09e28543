"""Who has had his turn in the queue does not go through it again for a place, for a turn, or since a worker died."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from producer import Producer, Settings, State
from producer.job import Job
from producer.ring import Bell
from tests.houses import start_worker, until
from tests.integration.test_statements import writer_of

SECONDS = 60.0
CROWD = 100


@pytest.fixture
def small_worker(settings: Settings, lone_producer: Producer, tmp_path: Path) -> Iterator[Producer]:
    """A worker that does three things at a time."""
    worker = start_worker(settings, tmp_path / "worker.log", concurrency=3)
    yield lone_producer
    worker.stop()


def crowd(producer: Producer) -> list[Job]:
    """A queue that takes some seconds; one after another, since what blocks a thread is rung for alone."""
    requests = [{"action": "test.nap", "params": {"seconds": 0.2}, "idempotency_key": f"nap-{n}"} for n in range(CROWD)]
    jobs = producer.enqueue_many(requests)
    producer.flush()
    return jobs


def between(since: datetime, them: list[Job], others: list[Job]) -> int:
    """How many of the others ended after that moment, and before the last of them."""
    assert {job.wait(SECONDS).state for job in [*them, *others]} == {State.SUCCEEDED}
    ended = [job.record.finished_at or since for job in others]
    last = max(job.record.finished_at or since for job in them)
    return sum(since < at < last for at in ended)


def are_held(jobs: list[Job], waiting_for: str) -> bool:
    return all(job.refresh().record.waiting_for == waiting_for for job in jobs)


def test_a_place_that_is_free_goes_to_who_waits_for_it_ahead_of_the_queue(
    small_worker: Producer, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    jobs = []
    for n in range(6):
        jobs.append(small_worker.enqueue("test.narrow_until", {"there": str(gate)}, idempotency_key=f"narrow-{n}"))
        small_worker.flush()  # a ring for each: of several, those that wait keep their room until the last has ended
    until(lambda: are_held(jobs[2:], "concurrency"))
    others, since = crowd(small_worker), datetime.now(UTC)
    gate.touch()
    assert between(since, jobs, others) < CROWD / 2


def test_a_turn_that_is_free_goes_to_who_waits_for_it_ahead_of_the_queue(
    small_worker: Producer, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    asked = {"conversation_id": "one", "gate": str(gate)}
    turns = [small_worker.enqueue("talk.say", asked | {"text": f"{n}"}, idempotency_key=f"turn-{n}") for n in range(4)]
    until(lambda: are_held(turns[1:], "conversation"))
    others, since = crowd(small_worker), datetime.now(UTC)
    gate.touch()
    assert between(since, turns, others) < CROWD / 2


@pytest.mark.parametrize(("crashes", "is_ahead"), [(0, True), (1, False)], ids=["once", "twice"])
def test_what_a_dead_worker_left_is_taken_up_ahead_of_the_queue_unless_it_takes_down_workers(
    settings: Settings,
    lone_producer: Producer,
    engine: Engine,
    tmp_path: Path,
    crashes: int,
    is_ahead: bool,  # noqa: FBT001  pytest's way
) -> None:
    job = lone_producer.enqueue("test.echo", {"value": 1}, idempotency_key="left")
    writer_of(engine, "gone").claim("test.echo", 1, [job.id])
    worker = start_worker(settings, tmp_path / "worker.log", concurrency=3)
    bell = Bell(settings.redis_url, timeout_seconds=SECONDS)
    try:
        until(lambda: bell.depth("actions") == 0)  # its ring was answered in vain
        others, since = crowd(lone_producer), datetime.now(UTC)
        over = text("UPDATE jobs SET lease_expires_at = now(), crashes = :crashes WHERE id = :id")
        with engine.begin() as connection:
            connection.execute(over, {"id": job.id, "crashes": crashes})
        assert (between(since, [job], others) < CROWD / 2) is is_ahead
    finally:
        worker.stop()
        bell.close()

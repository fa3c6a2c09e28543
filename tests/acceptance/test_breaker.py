"""The fleet's breaker with real workers: who is held, who is let through, and what becomes of the jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, text

from producer import Producer, Settings, State
from producer.breaker_words import MOVES, held_key_of, line_key_of
from producer.job import Job
from tests.gates import whys
from tests.houses import House, WorkerProcess, house_of, start_worker, until
from tests.integration.breakers import moves_in

SECONDS = 60.0


@pytest.fixture
def two(settings: Settings, tmp_path: Path) -> Iterator[tuple[Producer, list[WorkerProcess]]]:
    """A producer and two workers."""
    workers = [start_worker(settings, tmp_path / f"{name}.log", concurrency=20) for name in ("one", "two")]
    producer = Producer(settings)
    yield producer, workers
    producer.close()
    for worker in workers:
        worker.stop()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "calls"


def calls(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def broken(log: Path) -> Path:
    path = Path(f"{log}.broken")
    path.touch()
    return path


def enqueue(producer: Producer, action: str, count: int = 1, *, first: int = 0, **params: Any) -> list[Job]:
    keys = range(first, first + count)
    return producer.enqueue_many(
        {"action": action, "params": params, "idempotency_key": f"{action}-{key}"} for key in keys
    )


def moves(settings: Settings) -> list[tuple[str, str]]:
    with redis.Redis.from_url(settings.redis_url) as client:
        return [(move.was, move.becomes) for move in moves_in(client)]


OPENED, TRIED, CLOSED = ("closed", "open"), ("open", "half-open"), ("half-open", "closed")


def test_a_broken_dependency_is_left_alone_and_its_jobs_wait_and_are_done_once_it_is_well(
    two: tuple[Producer, list[WorkerProcess]], settings: Settings, log: Path
) -> None:
    producer, _ = two
    mark = broken(log)
    jobs = enqueue(producer, "shaky.call", 60, log=str(log))
    until(lambda: OPENED in moves(settings))
    held = until(lambda: [job for job in jobs if job.refresh().record.waiting_for == "breaker"])
    assert held[0].record.waiting_on == "shaky"
    until(lambda: ("half-open", "open") in moves(settings))  # a probe failed
    mark.unlink()
    assert {job.wait(SECONDS).state for job in jobs} == {State.SUCCEEDED}
    assert CLOSED in moves(settings)
    assert "breaker open" in {why for job in jobs for why in whys(job)}
    # Of the calls made while it was broken few failed: those under way when it opened, and one probe at a time.
    assert max(job.record.attempt for job in jobs) <= 8


def test_while_it_is_half_open_one_call_is_made_and_killing_its_process_does_not_wedge_it(
    two: tuple[Producer, list[WorkerProcess]], settings: Settings, log: Path
) -> None:
    producer, workers = two
    mark = broken(log)
    for job in enqueue(producer, "shaky.once", 5, log=str(log)):
        job.wait(SECONDS)
    until(lambda: OPENED in moves(settings))
    mark.unlink()
    before = len(calls(log))
    waiting = enqueue(producer, "shaky.wait", 20, log=str(log))
    until(lambda: len(calls(log)) > before)
    until(lambda: sum(job.refresh().record.waiting_for == "breaker" for job in waiting) == len(waiting) - 1)
    (probe,) = calls(log)[before:]
    next(worker for worker in workers if worker.pid == probe["pid"]).kill()
    Path(f"{log}.gate").touch()
    assert {job.wait(SECONDS).state for job in waiting} == {State.SUCCEEDED}
    assert CLOSED in moves(settings)


POISON: dict[str, str | bytes] = {
    "name": "shaky",
    "epoch": "1764000000000",
    "was": "ajar",
    "becomes": b"\xff",
    "reason": "",
    "who": "",
    "job": "",
    "until": "0",
    "gap": "100",
}


@pytest.mark.parametrize("fault", ["poison in the stream", "a ledger that takes no transitions"])
def test_what_cannot_be_written_down_of_a_breaker_keeps_no_due_job_from_being_rung(
    settings: Settings, lone_producer: Producer, engine: Engine, tmp_path: Path, fault: str
) -> None:
    job = lone_producer.enqueue("test.add", {"a": 1, "b": 2})
    assert lone_producer.flush()
    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushdb()  # and with it the ring
        client.xadd(MOVES, {**POISON, **({} if fault.startswith("poison") else {"was": "open", "becomes": "closed"})})
    with engine.connect() as connection:
        if not fault.startswith("poison"):
            connection.execute(text("ALTER TABLE breaker_events RENAME TO hidden"))
    worker = start_worker(settings, tmp_path / "worker.log")
    try:
        assert job.get(SECONDS) == {"total": 3}
        assert worker.events("breaker.set_aside" if fault.startswith("poison") else "duty.refused")
        assert not worker.events("relay.ledger_unreachable")
    finally:
        worker.stop()


@pytest.fixture(scope="module")
def one(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of(module_settings, tmp_path_factory.mktemp("one"), concurrency=50) as house:
        yield house


def test_of_jobs_whose_calls_succeed_their_breaker_asks_redis_less_than_once_in_a_hundred(one: House) -> None:
    def done(first: int, count: int) -> None:
        jobs = one.producer.enqueue_many(
            {"action": "test.add", "params": {"a": n, "b": 0}, "idempotency_key": f"closed-{n}"}
            for n in range(first, first + count)
        )
        assert {job.wait(SECONDS).state for job in jobs} == {State.SUCCEEDED}

    done(0, 100)  # by which it has met the dependency, and listens
    with redis.Redis.from_url(one.settings.redis_url) as client:
        before = scripts(client)
        done(100, 400)
        assert scripts(client) - before <= 0.01 * 400


def scripts(client: redis.Redis) -> int:
    """How many scripts were run by their name: Celery runs its own by their text."""
    told: Any = client.info("commandstats")
    return int(told["cmdstat_evalsha"]["calls"])


@pytest.mark.parametrize("say", ["refused", "hold"])
def test_a_definite_no_and_a_plea_for_patience_open_nothing(one: House, say: str) -> None:
    enqueued = enqueue(one.producer, "down.call", 10, first=20 * len(say), say=say)
    if say == "refused":
        assert {job.wait(SECONDS).state for job in enqueued} == {State.FAILED}
    else:
        until(lambda: one.worker.events("dependency.held"))
        for job in enqueued:
            job.cancel()
    assert moves(one.settings) == []


def test_who_waits_for_a_breaker_that_redis_forgot_is_performed_within_seconds(
    two: tuple[Producer, list[WorkerProcess]], settings: Settings
) -> None:
    producer, workers = two
    failing = enqueue(producer, "model.call", 5, model="m", fails=True)
    until(lambda: OPENED in moves(settings))
    jobs = enqueue(producer, "model.call", 30, first=5, model="m", fails=False)
    until(lambda: all(job.refresh().record.waiting_for == "breaker" for job in (*jobs, *failing)))
    for job in failing:
        job.cancel()
    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushdb()
    assert {job.wait(SECONDS).state for job in jobs} == {State.SUCCEEDED}
    assert [event for worker in workers for event in worker.events("breaker.woken")]


def test_what_waits_for_a_breaker_takes_nobody_s_place_meanwhile(two: tuple[Producer, list[WorkerProcess]]) -> None:
    producer, _ = two
    producer.breakers.force("down", "open", reason="they deploy")
    jobs = enqueue(producer, "down.narrow", 20, say="value")
    until(lambda: all(job.refresh().record.waiting_for == "breaker" for job in jobs))
    assert {why for job in jobs for why in whys(job)} == {"breaker open"}
    producer.breakers.force("down", "close", reason="they are back")
    assert {job.wait(SECONDS).state for job in jobs} == {State.SUCCEEDED}


def in_line(jobs: list[Job]) -> None:
    """Wait until all of them have come, and all but the one that has the place wait for it."""
    until(lambda: sum(job.refresh().record.waiting_for == "concurrency" for job in jobs) == len(jobs) - 1)


def test_a_place_that_is_of_no_use_to_one_model_s_job_goes_to_another_s(
    settings: Settings, lone_producer: Producer, tmp_path: Path
) -> None:
    gate, name = tmp_path / "gate", "model tenant=default model=down"
    first = enqueue(lone_producer, "model.one", model="first", gate=str(gate))
    worker = start_worker(settings, tmp_path / "worker.log", concurrency=60)
    try:
        until(lambda: first[0].refresh().state is State.RUNNING)
        down = enqueue(lone_producer, "model.one", 30, first=1, model="down", gate=str(gate))
        well = enqueue(lone_producer, "model.one", 5, first=31, model="well", gate=str(gate))
        in_line([*first, *down, *well])
        lone_producer.breakers.force(name, "open", reason="they deploy", new=True)
        gate.touch()
        # Each of the thirty hands it on at once. Were it kept for them instead, that would take five seconds each.
        assert {job.wait(SECONDS).state for job in (*first, *well)} == {State.SUCCEEDED}
        assert {job.refresh().record.waiting_for for job in down} == {"breaker"}
        lone_producer.breakers.force(name, "close", reason="they are back")
        assert {job.wait(SECONDS).state for job in down} == {State.SUCCEEDED}
    finally:
        worker.stop()


def test_a_line_of_jobs_that_degrade_ends_at_once(settings: Settings, lone_producer: Producer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = enqueue(lone_producer, "down.one", gate=str(gate))
    worker = start_worker(settings, tmp_path / "worker.log", concurrency=60)
    try:
        until(lambda: first[0].refresh().state is State.RUNNING)
        others = enqueue(lone_producer, "down.one", 30, first=1, gate=str(gate))
        in_line([*first, *others])
        lone_producer.breakers.force("down", "open", reason="they deploy")
        gate.touch()
        assert first[0].wait(SECONDS).state is State.SUCCEEDED
        assert {job.wait(SECONDS).state for job in others} == {State.DEGRADED}
    finally:
        worker.stop()


def test_a_job_behind_a_long_line_comes_back_while_it_still_has_time(
    settings: Settings, lone_producer: Producer, engine: Engine, tmp_path: Path
) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=200)
    worker = start_worker(settings, tmp_path / "worker.log")
    try:
        with redis.Redis.from_url(settings.redis_url) as client:
            client.set(held_key_of("down"), "429", px=60_000)
            client.set(line_key_of("down"), int(deadline.timestamp() * 1000) - 20_000)
        job = lone_producer.enqueue("down.call", {"say": "value"}, deadline=deadline)
        until(lambda: job.refresh().record.waiting_for == "rate")
        with engine.connect() as connection:
            due = connection.execute(text("SELECT due_at FROM jobs WHERE id = :id"), {"id": job.id}).scalar_one()
        assert due < deadline - timedelta(seconds=50)  # an action has a minute
    finally:
        worker.stop()


def test_what_waits_for_it_spends_no_attempt_and_what_has_a_fallback_is_degraded(one: House) -> None:
    failing = enqueue(one.producer, "down.call", 5, first=500, say="retry")
    assert {job.wait(SECONDS).state for job in failing} == {State.DEAD}
    until(lambda: OPENED in moves(one.settings))
    (degraded,) = enqueue(one.producer, "down.or_else", say="value")
    assert degraded.wait(SECONDS).state is State.DEGRADED
    assert (degraded.record.fallback, degraded.record.attempt, whys(degraded)) == ("instead", 0, ["breaker open"])
    for action in ("down.or_wait", "down.call"):
        (held,) = enqueue(one.producer, action, first=600, say="value")
        until(lambda job=held: job.refresh().state is State.WAITING)  # type: ignore[misc]
        record = held.record
        assert (record.waiting_for, record.waiting_on, record.attempt) == ("breaker", "down", 0)
        assert (record.due_at - record.accepted_at).total_seconds() > 200


def test_what_is_excluded_and_who_had_no_time_says_nothing_and_a_timeout_does(one: House) -> None:
    before = moves(one.settings)
    excluded = enqueue(one.producer, "quiet.call", 10)
    soon = datetime.now(UTC) + timedelta(seconds=10)
    hurried = one.producer.enqueue_many(
        {"action": "sleepy.call", "params": {}, "idempotency_key": f"sleepy-{n}", "deadline": soon} for n in range(10)
    )
    assert {job.wait(SECONDS).state for job in (*excluded, *hurried)} == {State.DEAD}
    assert {(job.error or {})["type"] for job in hurried} == {"AttemptTimeout"}
    assert moves(one.settings) == before
    for job in enqueue(one.producer, "drowsy.call", 5):
        job.wait(SECONDS)
    until(lambda: moves(one.settings) == [*before, OPENED])


def test_each_tenant_s_model_has_a_breaker_of_its_own(one: House) -> None:
    failing = enqueue(one.producer, "model.call", 5, model="large", fails=True)
    until(lambda: [job for job in failing if job.refresh().record.waiting_for == "breaker"])
    (held,) = enqueue(one.producer, "model.call", first=10, model="large", fails=False)
    until(lambda: held.refresh().record.waiting_on == "model tenant=default model=large")
    (other,) = enqueue(one.producer, "model.call", first=20, model="small", fails=False)
    assert other.get(SECONDS) == "small"

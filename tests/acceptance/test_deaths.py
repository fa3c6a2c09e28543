"""Processes and servers that die under a job: nothing is lost, and nothing is repeated silently."""

from __future__ import annotations

import json
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
import redis
from sqlalchemy import Engine, text

from producer import Producer, Settings, State
from producer.ledger.engine import open_engine
from tests.gates import Gate
from tests.houses import ASYNCIO, House, start_worker, until
from tests.rung import job_ids, rung
from worker.dev.servers import Valkey
from worker.rescue import rescue

SECONDS = 30.0
AGE = text("SELECT extract(epoch FROM clock_timestamp() - accepted_at) FROM jobs WHERE id = :id")


def calls(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_a_worker_killed_mid_action_leaves_a_keyed_job_to_be_done_again_with_the_same_key(
    own_house: House, tmp_path: Path
) -> None:
    log = tmp_path / "calls"
    job = own_house.producer.enqueue("test.keyed", {"log": str(log), "die": True})
    assert job.get(SECONDS) == 2
    first, second = calls(log)
    assert first["key"] == second["key"]
    assert (job.record.crashes, job.record.attempt) == (1, 2)
    assert "rescued" in [event.kind for event in job.events]


def test_a_whole_worker_killed_mid_action_leaves_an_unsafe_job_in_doubt_and_does_it_once(
    settings: Settings, lone_producer: Producer, tmp_path: Path
) -> None:
    log = tmp_path / "calls"
    first = start_worker(settings, tmp_path / "first.log")
    job = lone_producer.enqueue("test.effect", {"log": str(log), "wait_for": str(tmp_path / "never")})
    until(lambda: calls(log))
    first.kill()
    second = start_worker(settings, tmp_path / "second.log")
    try:
        until(lambda: job.refresh().state is State.IN_DOUBT)
        assert len(calls(log)) == 1
        rescued = next(event.data for event in job.events if event.kind == "rescued")
        assert rescued is not None
        assert job.error is not None
        assert job.error["message"] == f"worker {rescued['silent']} fell silent with this job"
        until(lambda: second.events("job.rescued"))  # the line follows the commit that showed the state
    finally:
        second.stop()


def test_a_worker_that_dies_half_way_through_a_ring_of_many_leaves_only_those_to_be_done_that_had_not_ended(
    settings: Settings, lone_producer: Producer, tmp_path: Path
) -> None:
    through, held = Gate(tmp_path).part("through"), Gate(tmp_path).part("held")
    through.open()
    requests = [*through.requests(range(5), "pool.count"), *held.requests(range(5), "pool.count")]
    jobs = lone_producer.enqueue_many(requests)
    assert lone_producer.flush()
    assert [len(ring.job_ids) for ring in rung(settings.redis_url)] == [10]
    first = start_worker(settings, tmp_path / "first.log", concurrency=20)
    held.wait_for(begun=5)
    until(lambda: [job.refresh().state for job in jobs[:5]] == [State.SUCCEEDED] * 5)
    first.kill()
    second = start_worker(settings, tmp_path / "second.log", concurrency=20)
    try:
        held.wait_for(begun=10)
        held.open()
        assert [job.get(SECONDS) for job in jobs] == ["done"] * 10
    finally:
        second.stop()
    assert [job.refresh().record.crashes for job in jobs] == [0] * 5 + [1] * 5
    assert (len(through.notes("began")), len(held.notes("began"))) == (5, 10)


def test_a_worker_stopped_beyond_its_lease_changes_nothing_when_it_comes_back(
    settings: Settings, lone_producer: Producer, tmp_path: Path
) -> None:
    log, gate = tmp_path / "calls", tmp_path / "gate"
    first = start_worker(settings, tmp_path / "first.log", concurrency=1)
    second = start_worker(settings, tmp_path / "second.log", concurrency=1)
    try:
        job = lone_producer.enqueue("test.effect", {"log": str(log), "wait_for": str(gate)})
        until(lambda: calls(log))
        frozen = psutil.Process(int(str(calls(log)[0]["pid"])))
        frozen.suspend()
        until(lambda: job.refresh().state is State.IN_DOUBT)
        gate.touch()
        frozen.resume()
        late = until(lambda: [event for event in job.events if event.kind == "late_result"])
        assert late[0].data is not None
        assert late[0].data["result"] == 1
        assert job.refresh().state is State.IN_DOUBT
        assert len(calls(log)) == 1
    finally:
        first.stop()
        second.stop()


def test_a_lease_is_renewed_for_as_long_as_an_action_runs(own_house: House, tmp_path: Path) -> None:
    log, gate = tmp_path / "calls", tmp_path / "gate"
    job = own_house.producer.enqueue("test.effect", {"log": str(log), "wait_for": str(gate)})
    until(lambda: calls(log))
    first_lease = job.refresh().record.lease_expires_at
    # Two leases long: without renewals the job would have been taken over by then.
    until(lambda: job.refresh().record.age > 7, seconds=SECONDS)
    assert job.record.state is State.RUNNING
    assert job.record.lease_expires_at is not None
    assert first_lease is not None
    assert job.record.lease_expires_at > first_lease
    gate.touch()
    assert job.get(SECONDS) == 1


def test_a_job_whose_ring_was_lost_is_rung_by_the_relay(
    settings: Settings, lone_producer: Producer, tmp_path: Path
) -> None:
    jobs = [lone_producer.enqueue("test.add", {"a": n, "b": 0}, idempotency_key=f"k{n}") for n in range(5)]
    assert lone_producer.flush()
    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushdb()
    worker = start_worker(settings, tmp_path / "worker.log")
    try:
        assert [job.get(SECONDS)["total"] for job in jobs] == list(range(5))
    finally:
        worker.stop()


@pytest.mark.parametrize("pool", [ASYNCIO, "prefork"])
def test_a_job_whose_ring_was_lost_is_rung_again_or_performed_though_its_queue_is_never_empty(
    settings: Settings, lone_producer: Producer, engine: Engine, tmp_path: Path, pool: str
) -> None:
    def crowd(count: int, lot: str) -> None:
        one = {"action": "test.slow_sync", "params": {"seconds": 0.05}}
        lone_producer.enqueue_many([{**one, "idempotency_key": f"{lot}-{n}"} for n in range(count)])
        assert lone_producer.flush()

    lost = lone_producer.enqueue("test.slow_sync", {"seconds": 0.0}, idempotency_key="lost")
    assert lone_producer.flush()
    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushdb()
    crowd(60, "before")
    with engine.connect() as connection:
        until(lambda: connection.execute(AGE, {"id": lost.id}).scalar_one() > 3)
    crowd(1_500, "after")
    one = {"SUREFOOT_THREADS": "1"}
    worker = start_worker(settings, tmp_path / "worker.log", pool=pool, concurrency=1, environment=one)
    try:
        if pool == ASYNCIO:  # which has a place for it beside its tasks
            assert lost.wait(2 * SECONDS).state is State.SUCCEEDED
        else:
            until(lambda: lost.id in job_ids(rung(settings.redis_url)), seconds=2 * SECONDS)
        assert {*job_ids(rung(settings.redis_url))} - {lost.id}  # more than a minute's worth of others waits still
    finally:
        worker.stop()


def test_a_job_accepted_while_redis_was_away_is_performed_once_it_is_back(
    settings: Settings, lone_producer: Producer, tmp_path: Path
) -> None:
    assert lone_producer.actions()
    away = Producer(Settings(database_url=settings.database_url, redis_url="redis://127.0.0.1:1/0"))
    job = away.enqueue("test.add", {"a": 1, "b": 1})
    worker = start_worker(settings, tmp_path / "worker.log")
    try:
        assert job.get(SECONDS) == {"total": 2}
    finally:
        worker.stop()
        away.close()


def test_a_ring_that_comes_five_times_is_answered_once(own_house: House, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    gate = tmp_path / "gate"
    job = own_house.producer.enqueue("test.effect", {"log": str(log), "wait_for": str(gate)})
    record = job.refresh().record
    app = own_house.producer._bell.app  # noqa: SLF001  to ring as a confused broker would
    for _ in range(5):
        app.send_task("test.effect", args=[str(job.id)], task_id=str(job.id), queue=record.queue)
    until(lambda: calls(log))
    gate.touch()
    job.wait(SECONDS)
    own_house.producer.enqueue("test.add", {"a": 1, "b": 1}).get(SECONDS)
    assert len(calls(log)) == 1


@pytest.mark.parametrize("pool", ["custom", "prefork", "threads"])
def test_a_worker_asked_to_stop_finishes_what_it_runs(
    settings: Settings, lone_producer: Producer, tmp_path: Path, pool: str
) -> None:
    log, gate = tmp_path / "calls", tmp_path / "gate"
    worker = start_worker(settings, tmp_path / "worker.log", pool=pool)
    job = lone_producer.enqueue("test.effect", {"log": str(log), "wait_for": str(gate)})
    until(lambda: calls(log))
    os.kill(worker.pid, signal.SIGTERM)
    until(lambda: worker.events("worker.stopping"))
    gate.touch()
    worker.process.wait(SECONDS)
    assert worker.process.returncode == 0
    assert job.refresh().state is State.SUCCEEDED


def test_the_threads_pool_serves_the_same_actions(settings: Settings, lone_producer: Producer, tmp_path: Path) -> None:
    worker = start_worker(settings, tmp_path / "worker.log", pool="threads", concurrency=8)
    try:
        jobs = [lone_producer.enqueue("test.fail_async", {"times": n % 3}, idempotency_key=f"k{n}") for n in range(24)]
        assert [job.get(SECONDS) for job in jobs] == [n % 3 + 1 for n in range(24)]
        ended = lone_producer.enqueue("test.raise", {"kind": "exit"}).wait(SECONDS)
        assert ended.state in (State.FAILED, State.DEAD)
    finally:
        worker.stop()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["custom", "prefork", "threads"])
def test_a_busy_worker_outlives_its_redis_and_goes_on_when_it_is_back(
    settings: Settings, lone_producer: Producer, tmp_path: Path, pool: str
) -> None:
    # With a ring unacknowledged and a slot free, kombu 5.7's own channel ends the worker here (worker/transport.py).
    log, gate = tmp_path / "calls", tmp_path / "gate"
    assert lone_producer.actions()
    with Valkey(tmp_path / "redis") as valkey:
        own = Settings(database_url=settings.database_url, redis_url=valkey.url)
        producer = Producer(own)
        worker = start_worker(own, tmp_path / "worker.log", pool=pool, concurrency=3)
        try:
            before = producer.enqueue("test.effect", {"log": str(log), "wait_for": str(gate)})
            until(lambda: calls(log))
            valkey.kill()
            meanwhile = producer.enqueue("test.add", {"a": 1, "b": 2})
            until(lambda: "Connection to broker lost" in worker.log.read_text())
            gate.touch()
            assert before.get(SECONDS) == 1  # the ledger needs no Redis
            valkey.start()
            assert meanwhile.get(SECONDS) == {"total": 3}
            assert producer.enqueue("test.add", {"a": 2, "b": 2}).get(SECONDS) == {"total": 4}
            assert worker.process.poll() is None
            assert len(calls(log)) == 1
        finally:
            worker.stop()
            producer.close()


def test_a_relay_whose_connection_is_killed_goes_on(own_house: House) -> None:
    engine = open_engine(own_house.settings.database_url, connections=1, name="tests")
    own_house.producer.enqueue("test.add", {"a": 1, "b": 1}).get(SECONDS)
    with engine.connect() as connection:
        kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE :worker"
        assert connection.execute(text(kill), {"worker": f"%:{own_house.worker.pid} relay"}).scalar()
        with redis.Redis.from_url(own_house.settings.redis_url) as client:
            later = datetime.now(UTC) + timedelta(seconds=1)
            job = own_house.producer.enqueue("test.add", {"a": 1, "b": 2}, run_at=later)
            client.flushdb()
    engine.dispose()
    assert job.get(SECONDS) == {"total": 3}  # only a relay rings a job for later


def test_a_keyed_job_that_waited_longer_than_its_key_lives_is_in_doubt_and_not_repeated(
    settings: Settings, lone_producer: Producer, tmp_path: Path
) -> None:
    log = tmp_path / "calls"
    engine = open_engine(settings.database_url, connections=1, name="tests")
    first = start_worker(settings, tmp_path / "first.log")
    job = lone_producer.enqueue("test.keyed", {"log": str(log), "die": True})
    until(lambda: calls(log))
    first.kill()
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET repeatable_until = clock_timestamp() + interval '1 h'"))
        past = "SELECT bool_and({} < clock_timestamp()) FROM jobs"
        until(lambda: connection.execute(text(past.format("lease_expires_at"))).scalar())
        rescue(connection, worker="tests", crash_cap=3)
        assert job.refresh().state is State.WAITING
        # As if the worker had been down for a day.
        connection.execute(text("UPDATE jobs SET repeatable_until = clock_timestamp()"))
    engine.dispose()
    second = start_worker(settings, tmp_path / "second.log")
    try:
        until(lambda: job.refresh().state is State.IN_DOUBT)
        assert len(calls(log)) == 1
    finally:
        second.stop()


def test_a_job_left_in_doubt_by_a_death_is_done_once_more_where_a_person_says_that_it_did_not_happen(
    settings: Settings, lone_producer: Producer, tmp_path: Path
) -> None:
    log = tmp_path / "calls"
    job = lone_producer.enqueue("test.effect", {"log": str(log), "wait_for": str(tmp_path / "never")})
    first = start_worker(settings, tmp_path / "first.log")
    until(lambda: calls(log))
    first.kill()
    second = start_worker(settings, tmp_path / "second.log")
    try:
        until(lambda: job.refresh().state is State.IN_DOUBT)
        (tmp_path / "never").touch()
        job.resolve("retry", reason="their books are empty", who="ada")
        assert job.get(SECONDS) == 2
        assert len(calls(log)) == 2
        kinds = [event.kind for event in job.events]
        assert kinds[kinds.index("rescued") :] == ["rescued", "resolved", "claimed", "intended", "succeeded"]
    finally:
        second.stop()

"""A worker that is told to stop: what runs is ended or given back, nothing is spent, and others go on at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from producer import Job, Producer, Settings, State
from producer.ring import Bell, Ring
from tests.celery_view import CeleryView
from tests.gates import Gate, enqueue_singly, whys
from tests.houses import ASYNCIO, WorkerProcess, start_worker, until
from tests.ledger_away import ledger_away
from worker.dev.servers import Servers
from worker.perform import LAST_WORDS_SECONDS

SECONDS = 30.0
# What is given back is written, and the interpreter ends: 0.2 s where nobody else is at work.
ENDING_SECONDS = 4.0
# Whatever is about to be performed waits for a lock, as it would for a slow disk.
HOLD_INTENTS = """
SELECT pg_advisory_lock(1);
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END';
CREATE TRIGGER hold BEFORE UPDATE ON jobs FOR EACH ROW WHEN (NEW.state = 'running') EXECUTE FUNCTION hold();
"""
HELD = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def told_to(worker: WorkerProcess, number: signal.Signals) -> WorkerProcess:
    worker.process.send_signal(number)
    return worker


def assert_given_back(jobs: Sequence[Job]) -> None:
    for job in jobs:
        record = job.refresh().record
        assert (record.state, record.waiting_for, record.attempt, record.crashes) == (State.WAITING, "worker", 0, 0)


def assert_in_doubt(jobs: Sequence[Job]) -> None:
    for job in jobs:
        assert job.refresh().state is State.IN_DOUBT
        assert job.error is not None
        assert job.error["message"] == "the attempt was cut off: stopping"


def assert_done_by_another(jobs: Sequence[Job], settings: Settings, tmp_path: Path, gate: Gate) -> None:
    gate.open()
    worker = start_worker(settings, tmp_path / "second.log", concurrency=20)
    try:
        assert [job.get(SECONDS) for job in jobs] == ["done"] * len(jobs)
        assert {tuple(whys(job)) for job in jobs} == {("returned", "succeeded")}
        assert {job.record.attempt for job in jobs} == {1}
    finally:
        worker.stop()


def test_a_worker_that_ends_warmly_finishes_what_it_runs_and_puts_back_the_rings_that_it_has_not_begun(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    environment = {"SUREFOOT_THREADS": "2", "SUREFOOT_LEASE_SECONDS": "30"}
    worker = start_worker(settings, tmp_path / "worker.log", concurrency=20, environment=environment)
    view = CeleryView(settings)
    try:
        running = lone_producer.enqueue_many(gate.requests(range(10)))
        gate.wait_for(begun=10)
        sync = enqueue_singly(lone_producer, gate.requests(range(5), "pool.wait_sync"))
        gate.wait_for(begun=12)
        until(lambda: view.depth() == 0)
        told_to(worker, signal.SIGTERM)
        # At once, and not when what runs has ended; one may be the answer to the worker's last BRPOP until then.
        until(lambda: view.depth() >= 2)
    finally:
        gate.open()
        assert worker.stop() == 0
    assert {job.refresh().state for job in running} == {State.SUCCEEDED}
    assert [job.refresh().state for job in sync] == [State.SUCCEEDED] * 2 + [State.QUEUED] * 3
    assert view.depth() == 3


@pytest.mark.parametrize("by", ["signal", "control shutdown"])
def test_a_worker_that_ends_warmly_puts_back_the_rings_that_a_rate_limit_of_celery_s_has_kept_from_beginning(
    settings: Settings, lone_producer: Producer, tmp_path: Path, by: str
) -> None:
    worker, view = start_worker(settings, tmp_path / "worker.log", concurrency=20), CeleryView(settings)
    view.control("rate_limit", task_name="test.add", rate_limit="1/h")
    jobs = enqueue_singly(lone_producer, [{"action": "test.add", "params": {"a": n, "b": n}} for n in range(3)])
    assert jobs[0].get(SECONDS) == {"total": 0}
    until(lambda: view.depth() == 0)
    if by == "control shutdown":
        view.app.control.shutdown()
        worker.process.wait(SECONDS)
    assert worker.stop() == 0
    assert view.depth() == 2


@pytest.mark.parametrize("soft", ["0", "1"])
def test_a_worker_that_ends_coldly_gives_back_what_can_be_repeated_and_the_next_one_does_it_at_once(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate, soft: str
) -> None:
    environment = {"SUREFOOT_SOFT_SHUTDOWN_SECONDS": soft, "SUREFOOT_LEASE_SECONDS": "30"}
    first = start_worker(settings, tmp_path / "first.log", concurrency=20, environment=environment)
    try:
        pure = lone_producer.enqueue_many(gate.requests(range(5)))
        pure += enqueue_singly(lone_producer, [gate.request(5), gate.request(6, "pool.wait_sync")])
        pure += enqueue_singly(
            lone_producer, [gate.request(7, "pool.wait_in_executor"), gate.request(10, "pool.ignore")]
        )
        unsafe = enqueue_singly(lone_producer, [gate.request(8, effect="unsafe")])
        unsafe += enqueue_singly(lone_producer, [gate.request(9, "pool.wait_sync", effect="unsafe")])
        gate.wait_for(begun=11)
        told_to(first, signal.SIGQUIT).process.wait(float(soft) + 15)
    finally:
        first.stop()
    assert_given_back(pure)
    assert_in_doubt(unsafe)
    assert_done_by_another(pure, settings, tmp_path, gate)


def test_five_hundred_in_flight_are_given_back_within_the_grace_and_no_doubt_is_left_that_need_not_be(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    grace = 2.0
    environment = {"SUREFOOT_SOFT_SHUTDOWN_SECONDS": f"{grace:g}", "SUREFOOT_LEASE_SECONDS": "30"}
    environment |= {"REMAP_SIGTERM": "SIGQUIT"}
    worker = start_worker(settings, tmp_path / "worker.log", concurrency=500, environment=environment)
    try:
        pure = lone_producer.enqueue_many(gate.requests(range(480)))
        unsafe = lone_producer.enqueue_many(gate.requests(range(20), effect="unsafe"))
        gate.wait_for(begun=500)
        not_begun = lone_producer.enqueue_many(gate.requests(range(100, 150), effect="unsafe"))
        told_at = time.monotonic()
        told_to(worker, signal.SIGTERM).process.wait(grace + SECONDS)
        took = time.monotonic() - told_at
    finally:
        worker.stop()
    (ended,) = {job.refresh().state for job in pure}
    assert ended is State.WAITING
    assert {(job.record.attempt, job.record.crashes, job.record.waiting_for) for job in pure} == {(0, 0, "worker")}
    assert {job.refresh().state for job in unsafe} == {State.IN_DOUBT}  # their requests may have left
    assert {job.refresh().state for job in not_begun} == {State.QUEUED}
    assert took < grace + LAST_WORDS_SECONDS + ENDING_SECONDS


def test_what_ends_while_a_worker_waits_before_it_ends_coldly_is_done_and_its_ring_does_not_come_back(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    environment = {"SUREFOOT_SOFT_SHUTDOWN_SECONDS": "3"}
    worker = start_worker(settings, tmp_path / "worker.log", concurrency=20, environment=environment)
    try:
        jobs = lone_producer.enqueue_many(gate.requests(range(5)))
        jobs += enqueue_singly(lone_producer, [gate.request(5), gate.request(6, "pool.wait_sync")])
        gate.wait_for(begun=7)
        told_to(worker, signal.SIGQUIT)
        gate.open()
        worker.process.wait(SECONDS)
    finally:
        gate.open()
        worker.stop()
    assert {job.refresh().state for job in jobs} == {State.SUCCEEDED}
    assert CeleryView(settings).depth() == 0


def test_flower_hears_how_the_tasks_ended_that_a_stopping_worker_finished(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    worker, view = start_worker(settings, tmp_path / "worker.log", concurrency=20), CeleryView(settings)
    try:
        with view.events() as events:
            (job,) = enqueue_singly(lone_producer, gate.requests(range(1)))
            gate.wait_for(begun=1)
            told_to(worker, signal.SIGTERM)
            until(lambda: worker.events("worker.stopping"))
            gate.open()
            assert worker.process.wait(SECONDS) == 0  # told once: who is told twice is in a hurry
            assert events.ended(job.id)["type"] == "task-succeeded"
    finally:
        gate.open()
        worker.stop()


@pytest.mark.parametrize(
    ("pool", "signals"),
    [(ASYNCIO, ["SIGQUIT"]), (ASYNCIO, ["SIGTERM", "SIGQUIT"]), ("prefork", ["SIGQUIT"])],
    ids=["at once", "after all", "prefork"],
)
def test_a_worker_that_ends_coldly_does_not_wait_for_a_ledger_that_does_not_answer(
    settings: Settings,
    lone_producer: Producer,
    engine: Engine,
    tmp_path: Path,
    gate: Gate,
    pool: str,
    signals: list[str],
) -> None:
    environment = {"SUREFOOT_SOFT_SHUTDOWN_SECONDS": "0", "SUREFOOT_LEASE_SECONDS": "30"}
    concurrency = 20 if pool == ASYNCIO else 3
    worker = start_worker(
        settings, tmp_path / "worker.log", pool=pool, concurrency=concurrency, environment=environment
    )
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(HOLD_INTENTS)
            jobs = lone_producer.enqueue_many(gate.requests(range(3), effect="unsafe"))
            at_once = 1 if pool == ASYNCIO else 3  # one statement, or each child's own
            until(lambda: connection.exec_driver_sql(HELD).scalar() == at_once)
            for name in signals:
                told_to(worker, signal.Signals[name])
                until(lambda: "shutdown" in worker.log.read_text() or "Ctrl+C" in worker.log.read_text())
            worker.process.wait(15)
            assert {job.refresh().state for job in jobs} == {State.CLAIMED}  # which says that nothing happened
            connection.exec_driver_sql("SELECT pg_advisory_unlock(1)")
    finally:
        worker.stop()
    assert gate.notes() == []


def test_a_child_of_prefork_that_says_that_the_ledger_is_away_while_its_worker_stops_does_not_keep_it(
    settings: Settings, lone_producer: Producer, dev_servers: Servers, tmp_path: Path
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    job = lone_producer.enqueue("test.add", {"a": 1, "b": 2}, run_at=later)
    environment = {"SUREFOOT_SOFT_SHUTDOWN_SECONDS": "5"}
    worker = start_worker(settings, tmp_path / "worker.log", pool="prefork", concurrency=1, environment=environment)
    view = CeleryView(settings)
    try:
        with ledger_away(settings, dev_servers):
            bell = Bell(settings.redis_url, timeout_seconds=3.0)
            assert not bell.ring_now([Ring(job.id, "test.add", "actions", 5, "", "")])
            bell.close()
            # It says so once it has waited for two seconds, when its worker waits for it, and reads nothing.
            until(lambda: view.control("active"))
            assert told_to(worker, signal.SIGQUIT).process.wait(SECONDS) == 0
    finally:
        worker.stop()
    assert worker.events("ledger.unreachable")
    assert job.refresh().state is State.QUEUED


@pytest.mark.parametrize(
    ("number", "remapped"),
    [(signal.SIGQUIT, {}), (signal.SIGTERM, {"REMAP_SIGTERM": "SIGQUIT"})],
    ids=["SIGQUIT", "SIGTERM, remapped"],
)
def test_a_prefork_worker_that_ends_coldly_has_its_children_give_back_what_they_run_and_no_attempt_is_spent(
    settings: Settings,
    lone_producer: Producer,
    tmp_path: Path,
    gate: Gate,
    number: signal.Signals,
    remapped: dict[str, str],
) -> None:
    grace = 1.0
    environment = {"SUREFOOT_SOFT_SHUTDOWN_SECONDS": f"{grace:g}", "SUREFOOT_LEASE_SECONDS": "30"} | remapped
    first = start_worker(settings, tmp_path / "first.log", pool="prefork", concurrency=4, environment=environment)
    try:
        pure = enqueue_singly(lone_producer, [gate.request(0), gate.request(1, "pool.wait_sync")])
        names = {2: "pool.wait", 3: "pool.wait_sync"}
        unsafe = enqueue_singly(lone_producer, [gate.request(n, name, effect="unsafe") for n, name in names.items()])
        gate.wait_for(begun=4)
        told_at = time.monotonic()
        assert told_to(first, number).process.wait(SECONDS) == 0
        assert time.monotonic() - told_at < grace + LAST_WORDS_SECONDS + ENDING_SECONDS
    finally:
        first.stop()
    assert_given_back(pure)
    assert_in_doubt(unsafe)
    assert_done_by_another(pure, settings, tmp_path, gate)


def test_a_child_of_prefork_that_is_told_to_end_twice_still_gives_back_what_it_runs(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    environment = {"SUREFOOT_SOFT_SHUTDOWN_SECONDS": "0", "SUREFOOT_LEASE_SECONDS": "30"}
    worker = start_worker(settings, tmp_path / "worker.log", pool="prefork", environment=environment)
    try:
        jobs = enqueue_singly(lone_producer, [gate.request(0, "pool.ignore")])  # it takes all the time for last words
        gate.wait_for(begun=1)
        told_to(worker, signal.SIGQUIT)
        (overheard, *_) = until(lambda: gate.notes("overheard"))
        os.kill(overheard["pid"], signal.SIGTERM)
        assert worker.process.wait(SECONDS) == 0
    finally:
        worker.stop()
    assert_given_back(jobs)


def test_what_a_child_of_prefork_begins_while_its_worker_ends_coldly_is_given_back_too(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    environment = {"SUREFOOT_SOFT_SHUTDOWN_SECONDS": "0", "SUREFOOT_LEASE_SECONDS": "30"}
    worker = start_worker(settings, tmp_path / "worker.log", pool="prefork", concurrency=1, environment=environment)
    view = CeleryView(settings)
    (child,) = worker.children
    try:
        child.suspend()
        (job,) = enqueue_singly(lone_producer, [gate.request(0)])
        until(lambda: view.depth() == 0 and view.pool())  # the answer comes after it has been handed over
        told_to(worker, signal.SIGQUIT)
        until(lambda: "Ctrl+C" in worker.log.read_text())
        child.resume()
        assert worker.process.wait(SECONDS) == 0
    finally:
        worker.stop()
    record = job.refresh().record
    assert record.state in {State.WAITING, State.QUEUED}  # which it is where it was told before it had claimed the job
    assert (record.attempt, record.crashes) == (0, 0)


def test_a_worker_of_threads_that_is_told_to_end_coldly_ends_what_it_runs_all_the_same(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    environment = {"SUREFOOT_SOFT_SHUTDOWN_SECONDS": "0"}
    worker = start_worker(settings, tmp_path / "worker.log", pool="threads", environment=environment)
    try:
        (job,) = lone_producer.enqueue_many([gate.request(0)])
        gate.wait_for(begun=1)
        told_to(worker, signal.SIGQUIT)
        until(lambda: "shutdown" in worker.log.read_text())
        gate.open()
        worker.process.wait(SECONDS)
        assert (job.refresh().state, job.record.crashes) == (State.SUCCEEDED, 0)
    finally:
        gate.open()
        worker.stop()

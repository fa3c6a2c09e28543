"""A worker that is told to stop: what runs is ended or given back, nothing is spent, and others go on at once."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine

from producer import Producer, Settings, State
from tests.celery_view import CeleryView
from tests.gates import Gate, enqueue_singly, whys
from tests.houses import STOP_SECONDS, WorkerProcess, start_worker, until
from worker.perform import LAST_WORDS_SECONDS

SECONDS = 30.0
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
    for job in pure:
        record = job.refresh().record
        assert (record.state, record.waiting_for, record.attempt, record.crashes) == (State.WAITING, "worker", 0, 0)
    for job in unsafe:
        assert job.refresh().state is State.IN_DOUBT
        assert job.error is not None
        assert job.error["message"] == "the attempt was cut off: stopping"
    gate.open()
    second = start_worker(settings, tmp_path / "second.log", concurrency=20)
    try:
        assert [job.get(SECONDS) for job in pure] == ["done"] * len(pure)
        assert {tuple(whys(job)) for job in pure} == {("returned", "succeeded")}
        assert {job.record.attempt for job in pure} == {1}
    finally:
        second.stop()


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
    assert took < grace + LAST_WORDS_SECONDS + STOP_SECONDS / 2


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
            assert worker.stop() == 0
            assert events.ended(job.id)["type"] == "task-succeeded"
    finally:
        gate.open()
        worker.stop()


@pytest.mark.parametrize("signals", [["SIGQUIT"], ["SIGTERM", "SIGQUIT"]], ids=["at once", "after all"])
def test_a_worker_that_ends_coldly_does_not_wait_for_a_ledger_that_does_not_answer(
    settings: Settings, lone_producer: Producer, engine: Engine, tmp_path: Path, gate: Gate, signals: list[str]
) -> None:
    environment = {"SUREFOOT_SOFT_SHUTDOWN_SECONDS": "0", "SUREFOOT_LEASE_SECONDS": "30"}
    worker = start_worker(settings, tmp_path / "worker.log", concurrency=20, environment=environment)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(HOLD_INTENTS)
            jobs = lone_producer.enqueue_many(gate.requests(range(3), effect="unsafe"))
            until(lambda: connection.exec_driver_sql(HELD).scalar())
            for name in signals:
                told_to(worker, signal.Signals[name])
                until(lambda: "shutdown" in worker.log.read_text() or "Ctrl+C" in worker.log.read_text())
            worker.process.wait(15)
            assert {job.refresh().state for job in jobs} == {State.CLAIMED}  # which says that nothing happened
            connection.exec_driver_sql("SELECT pg_advisory_unlock(1)")
    finally:
        worker.stop()
    assert gate.notes() == []

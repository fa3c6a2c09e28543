"""The asyncio pool in a real worker: how many jobs it has in flight, where they run, and what it tells of itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy.engine import make_url

from producer import Producer, Settings, State
from tests.celery_view import CeleryView
from tests.gates import Gate, enqueue_singly
from tests.houses import House, WorkerProcess, house_of, start_worker, until

SECONDS = 30.0
LIMIT = 60
THREADS = 3


@pytest.fixture(scope="module")
def house(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A worker with room for many async jobs and for few sync ones."""
    folder, environment = tmp_path_factory.mktemp("house"), {"SUREFOOT_THREADS": str(THREADS)}
    with house_of(module_settings, folder, concurrency=LIMIT, environment=environment) as made:
        yield made


@pytest.fixture(scope="module")
def view(house: House) -> CeleryView:
    return CeleryView(house.settings)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def connections_of(worker: WorkerProcess, settings: Settings) -> int:
    """How many connections to Postgres a worker has open, whatever they call themselves."""
    port = make_url(settings.database_url).port
    opened = psutil.Process(worker.pid).net_connections("tcp")
    return sum(c.status == psutil.CONN_ESTABLISHED and bool(c.raddr) and c.raddr.port == port for c in opened)


def test_fifty_async_actions_wait_at_the_same_time_in_one_process(house: House, view: CeleryView, gate: Gate) -> None:
    jobs = enqueue_singly(house.producer, gate.requests(range(50)))
    gate.wait_for(begun=50)
    stats = view.pool()
    assert (stats["jobs-in-flight"], stats["leases"]) == (50, 50)
    gate.open()
    assert [job.get(SECONDS) for job in jobs] == ["done"] * 50
    assert {line["pid"] for line in gate.notes()} == {house.worker.pid}
    assert len({line["thread"] for line in gate.notes()}) == 1


def test_sync_actions_take_no_more_threads_than_allowed_and_do_not_hold_up_async_ones(
    house: House, view: CeleryView, gate: Gate
) -> None:
    jobs = house.producer.enqueue_many(gate.requests(range(3 * THREADS), "pool.wait_sync"))
    gate.wait_for(begun=THREADS)
    house.producer.enqueue("pool.remember", {"mark": "async"}, idempotency_key="beside-sync-ones").get(SECONDS)
    # Its result is there a moment before its place is free again.
    stats = until(lambda: (pool := view.pool())["jobs-in-flight"] == THREADS and pool)
    assert stats["max-threads"] == THREADS
    gate.open()
    assert [job.get(SECONDS) for job in jobs] == ["done"] * (3 * THREADS)
    assert gate.most_at_once() == THREADS
    assert len({line["thread"] for line in gate.notes()}) == THREADS


@pytest.mark.parametrize("action", ["pool.remember", "pool.remember_sync"])
def test_context_variables_and_ids_are_each_job_s_own(house: House, action: str) -> None:
    marks = [f"{action}-{n}" for n in range(30)]
    jobs = house.producer.enqueue_many([{"action": action, "params": {"mark": mark}} for mark in marks])
    for job, mark in zip(jobs, marks, strict=True):
        result = job.get(SECONDS)
        assert result == {"before": "nobody's", "mark": mark, "in_a_thread": mark, "job": str(job.id)}
        line = next(line for line in house.worker.lines_of(job.id) if line["event"] == "pool.remembered")
        assert (line["mark"], line["action"], line["attempt"]) == (mark, action, 1)


@pytest.mark.usefixtures("house")
def test_inspect_tells_the_limits_and_that_nothing_is_in_flight_when_idle(view: CeleryView) -> None:
    stats = until(lambda: (pool := view.pool())["in-flight"] == 0 and pool)
    assert stats["implementation"] == "worker.pool:TaskPool"
    assert (stats["max-concurrency"], stats["max-async-jobs"], stats["max-threads"]) == (LIMIT, LIMIT, THREADS)
    assert (stats["jobs-in-flight"], stats["threads-left-behind"], stats["leases"]) == (0, 0, 0)


def test_the_limit_bounds_how_many_single_rings_are_in_flight_and_may_be_raised_meanwhile(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    worker, view = start_worker(settings, tmp_path / "worker.log", concurrency=4), CeleryView(settings)
    try:
        jobs = enqueue_singly(lone_producer, gate.requests(range(12)))
        until(lambda: len(gate.notes("began")) == 4 and view.depth() == 8)
        assert view.pool()["jobs-in-flight"] == 4
        view.control("pool_grow", n=3)
        until(lambda: len(gate.notes("began")) == 7 and view.depth() == 5)
        assert view.pool()["jobs-in-flight"] == 7
        gate.open()
        assert [job.get(SECONDS) for job in jobs] == ["done"] * 12
        assert gate.most_at_once() == 7
    finally:
        worker.stop()


def test_a_ring_of_many_is_taken_up_whole_and_the_next_one_not_before_there_is_room(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    worker, view = start_worker(settings, tmp_path / "worker.log", concurrency=10), CeleryView(settings)
    try:
        jobs = lone_producer.enqueue_many(gate.requests(range(300)))
        until(lambda: len(gate.notes("began")) == 100 and view.depth() == 2)
        stats = view.pool()
        assert (stats["in-flight"], stats["jobs-in-flight"]) == (1, 100)
        gate.open()
        assert [job.get(SECONDS) for job in jobs] == ["done"] * 300
        assert gate.most_at_once() < 10 + 100
    finally:
        worker.stop()


def test_two_hundred_jobs_in_flight_share_three_connections_to_postgres(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    worker = start_worker(settings, tmp_path / "worker.log", concurrency=200)
    try:
        lone_producer.enqueue_many(gate.requests(range(200)))
        gate.wait_for(begun=200)
        until(lambda: connections_of(worker, settings) == 3)  # the renewals' comes with the first lease to renew
        gate.open()
        while lone_producer.counts().get(State.SUCCEEDED, 0) < 200:
            assert connections_of(worker, settings) <= 3
    finally:
        worker.stop()

"""Attempts that are cut off: their jobs go on by their policy, their rings are acknowledged, and the worker lives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from producer import Producer, Settings, State
from tests.celery_view import CeleryView
from tests.gates import Gate, enqueue_singly, whys
from tests.houses import House, house_of, start_worker, until

SECONDS = 30.0
SOFT, HARD = ["--soft-time-limit", "1"], ["--time-limit", "1"]


@pytest.fixture(scope="module")
def house(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of(module_settings, tmp_path_factory.mktemp("house"), concurrency=20) as made:
        yield made


@pytest.fixture
def view(house: House) -> CeleryView:
    return CeleryView(house.settings)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def assert_no_ring_is_out(settings: Settings) -> None:
    with redis.Redis.from_url(settings.redis_url) as broker:
        until(lambda: broker.hlen("unacked") == 0)


@pytest.mark.parametrize("options", [SOFT, HARD], ids=["soft", "hard"])
def test_a_time_limit_of_celery_s_cuts_attempts_off_and_each_job_goes_on_by_its_policy(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate, options: list[str]
) -> None:
    worker = start_worker(settings, tmp_path / "worker.log", concurrency=20, options=options)
    try:
        together = lone_producer.enqueue_many(gate.requests(range(5)))
        alone, sync, unsafe = enqueue_singly(
            lone_producer,
            [gate.request(5), gate.request(6, "pool.wait_sync"), gate.request(7, effect="unsafe")],
        )
        until(lambda: unsafe.refresh().state is State.IN_DOUBT)
        again = [*together, alone, sync]
        until(lambda: all(job.refresh().record.attempt > 1 for job in again))
        gate.open()
        for job in again:
            assert job.get(SECONDS) == "done"
            assert set(whys(job)) == {"retry", "succeeded"}
        assert whys(unsafe) == ["a repeat may be a second effect"]
        assert unsafe.error is not None
        assert unsafe.error["message"] == "the attempt was cut off: time limit"
        assert_no_ring_is_out(settings)
    finally:
        gate.open()
        assert worker.stop() == 0


@pytest.mark.parametrize("action", ["pool.wait", "pool.wait_sync"])
def test_a_revoked_ring_is_cut_off_and_its_job_goes_on_by_its_policy(
    house: House, view: CeleryView, gate: Gate, action: str
) -> None:
    with view.events() as events:
        (job,) = enqueue_singly(house.producer, [gate.request(0, action)])
        gate.wait_for(begun=1)
        view.control("revoke", task_id=str(job.id), terminate=True)
        assert events.ended(job.id)["type"] == "task-revoked"
        gate.wait_for(begun=2)
    gate.open()
    assert job.get(SECONDS) == "done"
    assert whys(job) == ["retry", "succeeded"]
    assert_no_ring_is_out(house.settings)


def test_a_hard_time_limit_of_celery_s_ends_a_child_of_prefork_whether_or_not_it_can_still_write(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    worker = start_worker(settings, tmp_path / "worker.log", pool="prefork", options=HARD)
    try:
        safe, unsafe = enqueue_singly(lone_producer, [gate.request(0), gate.request(1, effect="unsafe")])
        until(lambda: unsafe.refresh().state is State.IN_DOUBT)
        assert unsafe.error is not None
        # It had a tenth of a second to say so itself.
        assert unsafe.error["message"] == "the attempt was cut off: time limit" or unsafe.error["type"] == "WorkerLost"
        gate.wait_for(begun=3)
        gate.open()
        assert safe.get(SECONDS) == "done"
        assert safe.record.attempt + safe.record.crashes > 1
    finally:
        gate.open()
        worker.stop()


def test_a_ring_that_is_revoked_under_way_in_a_child_of_prefork_ends_the_child_and_its_job_goes_on_by_its_policy(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    environment = {"SUREFOOT_LEASE_SECONDS": "30", "SUREFOOT_THREADS_LEFT_BEHIND_CAP": "1"}
    worker = start_worker(settings, tmp_path / "worker.log", pool="prefork", environment=environment)
    try:
        safe, unsafe = enqueue_singly(
            lone_producer, [gate.request(0, "pool.wait_sync"), gate.request(1, effect="unsafe")]
        )
        gate.wait_for(begun=2)
        for job in (safe, unsafe):
            CeleryView(settings).control("revoke", task_id=str(job.id), terminate=True)
        until(lambda: unsafe.refresh().state is State.IN_DOUBT)
        assert unsafe.error is not None
        assert unsafe.error["message"] == "the attempt was cut off: terminated"
        gate.wait_for(begun=3)
        gate.open()
        assert safe.get(SECONDS) == "done"
        assert whys(safe) == ["retry", "succeeded"]
        assert_no_ring_is_out(settings)
        assert not worker.events("worker.recycling")  # the child's thread went with the child
    finally:
        gate.open()
        worker.stop()


def test_an_unsafe_job_whose_ring_is_revoked_under_way_is_in_doubt(house: House, view: CeleryView, gate: Gate) -> None:
    (job,) = enqueue_singly(house.producer, [gate.request(0, effect="unsafe")])
    gate.wait_for(begun=1)
    view.control("revoke", task_id=str(job.id), terminate=True)
    until(lambda: job.refresh().state is State.IN_DOUBT)
    assert job.error is not None
    assert job.error["message"] == "the attempt was cut off: revoked"


def test_a_job_whose_ring_is_revoked_before_a_worker_has_it_is_rung_again(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    worker, view = start_worker(settings, tmp_path / "worker.log", concurrency=1), CeleryView(settings)
    try:
        enqueue_singly(lone_producer, [gate.request(0)])
        gate.wait_for(begun=1)
        job = lone_producer.enqueue("test.add", {"a": 1, "b": 2})
        view.control("revoke", task_id=str(job.id))
        gate.open()
        assert job.get(SECONDS) == {"total": 3}
    finally:
        gate.open()
        worker.stop()


def test_a_ring_that_is_revoked_before_the_loop_has_begun_it_gives_its_place_back(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    worker, view = start_worker(settings, tmp_path / "worker.log", concurrency=2), CeleryView(settings)
    first, second = gate.part("first"), gate.part("second")
    try:
        enqueue_singly(lone_producer, [first.request(0, "pool.block")])
        first.wait_for(begun=1)
        (job,) = enqueue_singly(lone_producer, [first.request(1)])
        until(lambda: view.pool()["in-flight"] == 2)
        view.control("revoke", task_id=str(job.id), terminate=True)
        first.open()
        assert job.get(SECONDS) == "done"
        jobs = enqueue_singly(lone_producer, second.requests(range(2)))
        second.wait_for(begun=2)
        second.open()
        assert [job.get(SECONDS) for job in jobs] == ["done"] * 2
    finally:
        first.open()
        second.open()
        worker.stop()


@pytest.mark.parametrize(
    ("action", "count"), [("pool.overhear", "deaf-actions"), ("pool.outlive", "threads-left-behind")]
)
def test_an_action_that_outlives_its_timeout_is_left_behind_and_its_job_ends(
    house: House, view: CeleryView, gate: Gate, action: str, count: str
) -> None:
    jobs = enqueue_singly(house.producer, gate.requests(range(2), action))
    jobs += house.producer.enqueue_many(gate.requests(range(2, 4), action))
    for job in jobs:
        assert job.wait(SECONDS).state is State.DEAD
        assert job.error is not None
        assert job.error["type"] == "AttemptTimeout"
    # Whoever waits hears of a job's end a moment before its attempt has let go of its place.
    until(lambda: [view.pool()[fact] for fact in (count, "jobs-in-flight", "leases")] == [4, 0, 0])
    gate.open()
    until(lambda: view.pool()[count] == 0)


def test_an_attempt_without_any_time_left_for_its_effect_does_not_begin_it_and_leaves_no_doubt(
    house: House, gate: Gate
) -> None:
    (job,) = house.producer.enqueue_many([gate.request(0, "pool.dawdle")])
    assert job.wait(SECONDS).state is State.DEAD
    assert job.error is not None
    assert (job.error["type"], job.error["message"]) == ("AttemptTimeout", "no time was left for its effect")
    assert [event.kind for event in job.events if event.kind in ("intended", "in_doubt")] == ["intended"] * 2
    assert not gate.notes("began")


def test_an_action_may_tidy_up_when_its_time_is_over(house: House, gate: Gate) -> None:
    (job,) = house.producer.enqueue_many([gate.request(0, "pool.tidy_up")])
    assert job.wait(SECONDS).state is State.DEAD
    assert job.error is not None
    assert job.error["type"] == "AttemptTimeout"
    assert gate.notes("tidied up")


def test_a_worker_with_too_many_threads_left_behind_ends_in_good_order(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    environment = {"SUREFOOT_THREADS_LEFT_BEHIND_CAP": "3"}
    worker = start_worker(settings, tmp_path / "worker.log", concurrency=20, environment=environment)
    try:
        jobs = lone_producer.enqueue_many(gate.requests(range(2), "pool.outlive"))
        assert [job.wait(SECONDS).state for job in jobs] == [State.DEAD] * 2
        assert not worker.events("worker.recycling")
        (last,) = lone_producer.enqueue_many([gate.request(2, "pool.outlive")])
        assert worker.process.wait(SECONDS) == 0
        assert [line["threads_left_behind"] for line in worker.events("worker.recycling")] == [3]
        assert last.refresh().state is State.DEAD
    finally:
        worker.stop()


def test_a_worker_whose_child_has_too_many_threads_left_behind_ends_with_all_its_children(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    environment = {"SUREFOOT_THREADS_LEFT_BEHIND_CAP": "1"}
    worker = start_worker(settings, tmp_path / "worker.log", pool="prefork", environment=environment)
    try:
        (job,) = lone_producer.enqueue_many([gate.request(0, "pool.outlive")])
        assert worker.process.wait(SECONDS) == 0
        assert [line["threads_left_behind"] for line in worker.events("worker.recycling")] == [1]
        assert job.refresh().state is State.DEAD
    finally:
        worker.stop()


def test_two_children_with_too_many_threads_left_behind_have_their_worker_stop_once_and_not_in_a_hurry(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    """With `REMAP_SIGTERM` Celery takes a second signal as a wish to stop at once."""
    hurried = {"REMAP_SIGTERM": "SIGQUIT", "SUREFOOT_SOFT_SHUTDOWN_SECONDS": "3"}
    environment = {"SUREFOOT_THREADS_LEFT_BEHIND_CAP": "1", **hurried}
    worker = start_worker(settings, tmp_path / "worker.log", pool="prefork", environment=environment)
    try:
        jobs = lone_producer.enqueue_many(gate.requests(range(2), "pool.outlive"))
        assert worker.process.wait(SECONDS) == 0
        assert len(worker.events("worker.recycling")) == 1
        assert [job.refresh().state for job in jobs] == [State.DEAD] * 2
    finally:
        worker.stop()


def test_threads_that_a_stop_leaves_behind_are_no_reason_to_end(
    settings: Settings, lone_producer: Producer, tmp_path: Path, gate: Gate
) -> None:
    environment = {"SUREFOOT_THREADS_LEFT_BEHIND_CAP": "1", "REMAP_SIGTERM": "SIGQUIT"}
    environment |= {"SUREFOOT_SOFT_SHUTDOWN_SECONDS": "1", "SUREFOOT_LEASE_SECONDS": "30"}
    worker = start_worker(settings, tmp_path / "worker.log", environment=environment)
    try:
        lone_producer.enqueue_many([gate.request(0, "pool.wait_sync")])
        until(gate.notes)
        worker.stop()
        assert worker.events("worker.stopping")
        assert not worker.events("worker.recycling")
    finally:
        worker.stop()

"""Actions that do what no action should: each job ends, and its worker goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from producer import Settings, State
from tests.celery_view import CeleryView
from tests.gates import Gate, enqueue_singly, whys
from tests.houses import House, house_of, until, worker_environment

SECONDS = 30.0
# Code of an author's, beside his actions, that ends the process: how to give it its way, and why the job ends.
TOUCHY: dict[str, tuple[Callable[[str], Any], State, str]] = {
    "pool.touchy_params": (lambda way: {"given": {"way": way}}, State.FAILED, "params refused"),
    "pool.touchy_effect": (lambda way: {"way": way}, State.FAILED, "params refused"),
    "pool.touchy_result": (lambda way: {"way": way}, State.DEAD, "out of retries"),
}
# What is raised, and what of it is recorded: its type, and a word of its message.
KINDS = {
    "exit": ("SystemExit", "3"),
    "exit in a task": ("SystemExit", "3"),
    "interrupt": ("KeyboardInterrupt", ""),
    "cancelled": ("CancelledError", ""),
    "generator exit": ("GeneratorExit", ""),
    "stop": ("RuntimeError", "StopIteration"),
    "endless recursion": ("RecursionError", "maximum recursion depth"),
    "memory": ("MemoryError", "none left"),
    "unprintable": ("Unprintable", "its message cannot be had: ValueError"),
    "exiting": ("Exiting", "its message cannot be had: SystemExit"),
    "group": ("BaseExceptionGroup", "several"),
}


@pytest.fixture(scope="module")
def house(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of(module_settings, tmp_path_factory.mktemp("house"), concurrency=20) as made:
        yield made


def assert_it_goes_on(house: House) -> None:
    """Hold the worker to performing a job and having nothing left in its hands."""
    assert house.producer.enqueue("pool.remember", {"mark": "on"}, on_closed="rerun").get(SECONDS)["mark"] == "on"
    view = CeleryView(house.settings)
    until(lambda: (pool := view.pool())["in-flight"] == pool["jobs-in-flight"] == pool["leases"] == 0)
    assert not house.worker.events("pool.task_failed")
    assert not house.worker.events("pool.callback_failed")


@pytest.mark.parametrize("action", ["pool.raise", "pool.raise_sync"])
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_an_action_raises_its_job_ends_its_neighbours_too_and_the_worker_goes_on(
    house: House, action: str, kind: str
) -> None:
    def request(number: int, **params: str) -> dict[str, object]:
        return {
            "action": action,
            "params": {"kind": kind} | params,
            "idempotency_key": f"{kind}-{number}".replace(" ", "-"),
        }

    alone, unsafe_alone = enqueue_singly(house.producer, [request(0), request(1, effect="unsafe")])
    together = house.producer.enqueue_many([request(2), request(3, effect="unsafe"), request(4)])
    type_name, message = KINDS[kind]
    for job in (alone, unsafe_alone, *together):
        job.wait(SECONDS)
        assert job.error is not None
        assert (job.error["type"], message in job.error["message"]) == (type_name, True)
    for job in (alone, together[0], together[2]):
        assert job.state in (State.FAILED, State.DEAD)
    assert (unsafe_alone.state, together[1].state) == (State.IN_DOUBT, State.IN_DOUBT)
    assert_it_goes_on(house)


@pytest.mark.parametrize("action", TOUCHY)
def test_a_check_that_would_end_the_process_ends_its_own_job_alone(house: House, action: str) -> None:
    params, state, why = TOUCHY[action]
    interruptions = len(house.worker.events("loop.interrupted"))  # by tasks of other tests' actions
    before, job, after = house.producer.enqueue_many(
        [{"action": action, "params": params(way), "idempotency_key": way} for way in ("stay", "exit", "stay-on")]
    )
    assert job.wait(SECONDS).state is state
    assert job.error is not None
    assert (job.error["type"], whys(job), job.record.crashes) == ("SystemExit", [why], 0)
    for neighbour in (before, after):
        assert neighbour.wait(SECONDS).state is State.SUCCEEDED
    assert_it_goes_on(house)
    assert len(house.worker.events("loop.interrupted")) == interruptions


def test_an_action_that_keeps_the_loop_for_longer_than_its_lease_is_named_with_its_stack_and_keeps_its_job(
    house: House, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    lease_seconds = float(worker_environment(house.settings)["SUREFOOT_LEASE_SECONDS"])
    (job,) = enqueue_singly(house.producer, [gate.request(0, "pool.block")])
    gate.wait_for(begun=1)
    claimed_until = job.refresh().record.lease_expires_at
    assert claimed_until is not None
    # The first lease has been over for a second then, in which the rescue looked several times.
    long_after = claimed_until + timedelta(seconds=lease_seconds + 1)
    try:
        until(lambda: (job.refresh().record.lease_expires_at or claimed_until) > long_after)
    finally:
        gate.open()
    assert job.get(SECONDS) == "done"
    assert (job.record.attempt, job.record.crashes) == (1, 0)
    assert [event.kind for event in job.events] == ["accepted", "claimed", "intended", "succeeded"]
    assert [line["what"] for line in gate.notes()] == ["began", "ended"]
    (line,) = [line for line in house.worker.events("loop.blocked") if line["by"] == f"pool.block {job.id}"]
    assert "in block\n" in line["stack"]
    assert "in wait_sync\n" in line["stack"]
    until(lambda: house.worker.events("loop.free"))
    assert_it_goes_on(house)

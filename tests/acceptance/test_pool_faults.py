"""Actions that do what no action should: each job ends, and its worker goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from producer import Settings, State
from tests.celery_view import CeleryView
from tests.gates import Gate, enqueue_singly
from tests.houses import House, house_of, until

SECONDS = 30.0
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
    "group": ("BaseExceptionGroup", "several"),
}


@pytest.fixture(scope="module")
def house(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of(module_settings, tmp_path_factory.mktemp("house"), concurrency=20) as made:
        yield made


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


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

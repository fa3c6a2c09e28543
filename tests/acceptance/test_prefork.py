"""A worker with child processes: a ring of many jobs is no child's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer import Settings
from tests.gates import Gate
from tests.houses import House, house_of, until

SECONDS = 30.0
MANY = 20


@pytest.fixture(scope="module")
def house(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A worker with two children."""
    with house_of(module_settings, tmp_path_factory.mktemp("house"), pool="prefork") as made:
        yield made


def test_a_ring_of_many_jobs_is_shared_by_the_children_one_job_each(house: House, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    jobs = house.producer.enqueue_many(gate.requests(range(MANY), "pool.count"))
    until(lambda: len({note["pid"] for note in gate.notes()}) == 2)
    assert {note["pid"] for note in gate.notes()} == {child.pid for child in house.worker.children}
    assert len(gate.notes()) == 2  # a child has one job at a time, and the others wait in the queue
    gate.open()
    assert [job.get(SECONDS) for job in jobs] == ["done"] * MANY
    assert Counter(note["job"] for note in gate.notes("began")) == {str(job.id): 1 for job in jobs}


def test_who_comes_behind_a_ring_of_many_waits_for_the_jobs_before_it_and_not_for_one_child(
    house: House, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    held, *_ = house.producer.enqueue_many([gate.request(1, "pool.count")])
    until(lambda: len(gate.notes()) == 1)  # one of the two children is taken
    adds = [{"action": "test.add", "params": {"a": n, "b": 1}} for n in range(MANY)]
    for n, job in enumerate(house.producer.enqueue_many(adds)):
        assert job.get(SECONDS) == {"total": n + 1}
    gate.open()
    assert held.get(SECONDS) == "done"

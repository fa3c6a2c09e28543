"""Ten thousand jobs that wait for one worker: done once each, in bounded memory, and never many of them taken up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from producer import Settings, State
from tests.celery_view import CeleryView
from tests.gates import Gate
from tests.houses import House, WorkerProcess, house_of, until

SECONDS = 25.0
FEW, MANY = 100, 10_000
RING = 100
LIMIT = 150
# Measured on two cores with Python 3.11 on 2026-11-24: 106 MiB after the few, 112 after the many. Three KiB that were
# kept of each job would be too much.
MORE_MIB = 30.0


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen of a worker that worked off a backlog.

    Attributes:
        rings_left: How many rings waited in Redis while those that were taken up could not end.
        pool: What the pool told of itself meanwhile.
        begun: How often each job was begun, by its id.
        states: How many jobs stood in each state in the end.
        little_mib: The most memory that the worker had needed before, for a few jobs.
        most_mib: The same in the end.
    """

    rings_left: int
    pool: dict[str, Any]
    begun: Counter[str]
    states: dict[State, int]
    little_mib: float
    most_mib: float


@pytest.fixture(scope="module")
def house(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of(module_settings, tmp_path_factory.mktemp("house"), concurrency=LIMIT) as made:
        yield made


@pytest.fixture(scope="module")
def observed(house: House) -> Observed:
    few, many, view = Gate(house.folder).part("few"), Gate(house.folder).part("many"), CeleryView(house.settings)
    few.open()
    house.producer.enqueue_many(few.requests(range(FEW), "pool.count"))
    until(lambda: house.producer.counts() == {State.SUCCEEDED: FEW})
    little = peak_mib(house.worker)
    house.producer.enqueue_many(many.requests(range(MANY), "pool.count"))
    assert house.producer.flush()
    pool = until(lambda: (told := view.pool())["jobs-in-flight"] >= LIMIT and told)
    many.wait_for(begun=pool["jobs-in-flight"])
    left = view.depth()
    many.open()
    until(lambda: set(house.producer.counts()) == {State.SUCCEEDED}, seconds=SECONDS)
    begun = Counter(line["job"] for line in many.notes("began"))
    return Observed(left, pool, begun, house.producer.counts(), little, peak_mib(house.worker))


def peak_mib(worker: WorkerProcess) -> float:
    """The most memory that a worker has had resident at any time."""
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker.pid}/status").read_text())
    return int(kib) / 1024


def test_each_of_ten_thousand_waiting_jobs_is_performed_once(observed: Observed) -> None:
    assert observed.states == {State.SUCCEEDED: FEW + MANY}
    assert (len(observed.begun), set(observed.begun.values())) == (MANY, {1})


def test_a_worker_takes_up_rings_until_their_jobs_are_as_many_as_it_has_room_for(observed: Observed) -> None:
    assert observed.pool["jobs-in-flight"] < LIMIT + RING
    assert observed.rings_left == (MANY - observed.pool["jobs-in-flight"]) // RING


def test_a_backlog_costs_a_worker_little_memory(observed: Observed) -> None:
    assert observed.most_mib - observed.little_mib < MORE_MIB


def test_sync_jobs_are_performed_in_threads_while_a_big_ring_waits(house: House, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    waiting = house.producer.enqueue_many(gate.requests(range(RING)))
    gate.wait_for(begun=RING)
    requests = [{"action": "pool.remember_sync", "params": {"mark": f"m{n}"}} for n in range(50)]
    for job in house.producer.enqueue_many(requests):
        assert job.get(SECONDS)["job"] == str(job.id)
    assert gate.notes("ended") == []
    gate.open()
    assert [job.get(SECONDS) for job in waiting] == ["done"] * RING

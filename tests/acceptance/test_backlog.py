"""Eleven thousand jobs that gather while no worker runs: done once each, in bounded memory, few taken up at a time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from producer import Producer, Settings, State
from tests.celery_view import CeleryView
from tests.gates import Gate
from tests.houses import House, WorkerProcess, house_of, until

SECONDS = 60.0
FEW, MANY, SINGLE = 100, 10_000, 1_000
RING = 100
LIMIT = 150
LAST = 9
# Measured on two cores with Python 3.11 on 2026-11-27: 117 MiB for the few, 122 for the many. Three KiB that were kept
# of each job would be too much.
MORE_MIB = 30.0

pytestmark = pytest.mark.timeout(200)  # three processes start and end, and the jobs are many


@dataclass(frozen=True, slots=True)
class Backlog:
    """Jobs that were enqueued while no worker ran.

    Attributes:
        many: Of an async action, a hundred to a ring; they wait here.
        single: Of a sync one, each with a ring to itself, which comes after all of those.
    """

    many: Gate
    single: Gate


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen of a worker that worked off a backlog.

    Attributes:
        rings_left: How many rings waited in Redis while those that were taken up could not end.
        pool: What the pool told of itself meanwhile.
        begun: How often each job was begun, by its id.
        states: How many jobs stood in each state in the end.
        most_mib: The most memory that the worker has needed.
    """

    rings_left: int
    pool: dict[str, Any]
    begun: Counter[str]
    states: dict[State, int]
    most_mib: float


@pytest.fixture(scope="module")
def little_mib(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> float:
    """The most memory that a worker needs for a few jobs. It is gone by then, and has published its actions."""
    with house_of(module_settings, tmp_path_factory.mktemp("few"), concurrency=LIMIT) as house:
        few = Gate(house.folder)
        few.open()
        house.producer.enqueue_many(
            [*few.requests(range(FEW), "pool.count"), *few.requests(range(FEW), "pool.wait_sync")]
        )
        until(lambda: house.producer.counts() == {State.SUCCEEDED: 2 * FEW})
        return peak_mib(house.worker)


@pytest.fixture(scope="module")
def backlog(module_settings: Settings, little_mib: float, tmp_path_factory: pytest.TempPathFactory) -> Backlog:
    assert little_mib  # its worker has ended
    folder = Gate(tmp_path_factory.mktemp("backlog"))
    many, single = folder.part("many"), folder.part("single")
    single.open()
    producer = Producer(module_settings)
    producer.enqueue_many(many.requests(range(MANY), "pool.count"))
    producer.enqueue_many([each | {"priority": LAST} for each in single.requests(range(SINGLE), "pool.wait_sync")])
    assert producer.flush()
    assert producer.counts() == {State.SUCCEEDED: 2 * FEW, State.QUEUED: MANY + SINGLE}
    assert CeleryView(module_settings).depth() == MANY // RING + SINGLE
    producer.close()
    return Backlog(many, single)


@pytest.fixture(scope="module")
def house(module_settings: Settings, backlog: Backlog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A worker that starts only now."""
    assert not backlog.many.notes()
    with house_of(module_settings, tmp_path_factory.mktemp("house"), concurrency=LIMIT) as made:
        yield made


@pytest.fixture(scope="module")
def observed(house: House, backlog: Backlog) -> Observed:
    view = CeleryView(house.settings)
    pool = until(lambda: (told := view.pool())["jobs-in-flight"] >= LIMIT and told)
    backlog.many.wait_for(begun=pool["jobs-in-flight"])
    left = view.depth()
    backlog.many.open()
    until(lambda: view.depth() == 0, seconds=2 * SECONDS)  # to count all jobs all the time would hold them up
    until(lambda: set(house.producer.counts()) == {State.SUCCEEDED})
    begun = Counter(line["job"] for gate in (backlog.many, backlog.single) for line in gate.notes("began"))
    return Observed(left, pool, begun, house.producer.counts(), peak_mib(house.worker))


def peak_mib(worker: WorkerProcess) -> float:
    """The most memory that a worker has had resident at any time."""
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker.pid}/status").read_text())
    return int(kib) / 1024


def test_each_of_the_jobs_that_waited_for_a_worker_to_start_is_performed_once(observed: Observed) -> None:
    assert observed.states == {State.SUCCEEDED: 2 * FEW + MANY + SINGLE}
    assert (len(observed.begun), set(observed.begun.values())) == (MANY + SINGLE, {1})


def test_a_worker_takes_up_rings_until_their_jobs_are_as_many_as_it_has_room_for(observed: Observed) -> None:
    assert observed.pool["jobs-in-flight"] < LIMIT + RING
    assert observed.rings_left == (MANY - observed.pool["jobs-in-flight"]) // RING + SINGLE


def test_a_backlog_costs_a_worker_little_memory(observed: Observed, little_mib: float) -> None:
    assert observed.most_mib - little_mib < MORE_MIB


@pytest.mark.usefixtures("observed")
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

"""What became of an action in doubt is looked up by its own hook, by real workers, whatever dies or goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from producer import JobNotInDoubt, JobUnfinished, Producer, Settings, State
from producer.job import Job
from tests.houses import House, WorkerProcess, house_of, start_worker, until
from tests.verified_actions import AFTER, EVERY, lines

SECONDS = 30.0
TIMEOUT = 1.0


@pytest.fixture
def book(tmp_path: Path) -> str:
    return str(tmp_path / "book")


def closed(job: Job) -> State:
    """Wait until a job is over; in doubt is not."""
    until(lambda: job.refresh().record.finished_at, seconds=SECONDS)
    return job.state


def told(job: Job) -> list[dict[str, Any]]:
    return [dict(event.data or {}) for event in job.events if event.kind == "verified"]


ACTIONS = ("verified.transfer", "verified.transfer_async")


@pytest.mark.parametrize("action", ACTIONS)
def test_a_transfer_whose_answer_was_lost_is_found_and_not_made_again(house: House, book: str, action: str) -> None:
    job = house.producer.enqueue(action, {"book": book, "goes": ["lost"]})
    assert closed(job) is State.SUCCEEDED
    assert (job.result, job.error, len(lines(book))) == (1, None, 1)
    assert [each["verdict"] for each in told(job)] == ["happened"]
    assert [event.kind for event in job.events] == ["accepted", "claimed", "intended", "in_doubt", "verified"]


@pytest.mark.parametrize("action", ACTIONS)
def test_a_transfer_that_went_astray_is_made_again_once_two_looks_in_quiet_have_missed_it(
    house: House, book: str, action: str
) -> None:
    job = house.producer.enqueue(action, {"book": book, "goes": ["astray", "through"]})
    assert closed(job) is State.SUCCEEDED
    assert (job.result, [line["attempt"] for line in lines(book)]) == (1, [2])
    # Before these two it was looked for too early, but where that look came late.
    assert [each["why"] for each in told(job)][-2:] == ["not there, once", "it did not happen"]
    intent = next(event.at for event in job.events if event.kind == "intended")
    looks = [event.at for event in job.events if event.kind == "verified"][-2:]
    assert (looks[0] - intent).total_seconds() >= TIMEOUT + AFTER - 0.1  # the intent's own way here counts, too
    assert (looks[1] - looks[0]).total_seconds() >= EVERY


def test_who_waits_for_a_job_in_doubt_waits_on_while_it_can_be_looked_up(house: House, book: str) -> None:
    lost = house.producer.enqueue("verified.transfer", {"book": book, "goes": ["lost"], "looks": ["busy"]})
    astray = house.producer.enqueue("verified.transfer", {"book": f"{book}2", "goes": ["astray", "through"]})
    assert lost.get(SECONDS) == 1
    assert astray.get(SECONDS) == 1
    with pytest.raises(JobUnfinished, match=r"is in_doubt after 0\.1 s; it goes on"):
        house.producer.enqueue("verified.transfer", {"book": f"{book}3", "goes": ["astray"]}).wait(0.1)
    unsafe = house.producer.enqueue("test.unsafe_unknown", {})
    assert unsafe.wait(SECONDS).state is State.IN_DOUBT


def test_a_transfer_that_never_arrives_is_dead_when_it_is_out_of_retries(house: House, book: str) -> None:
    job = house.producer.enqueue("verified.transfer", {"book": book, "goes": ["astray"]})
    assert closed(job) is State.DEAD
    assert (job.record.attempt, lines(book)) == (3, [])
    assert told(job)[-1]["why"] == "out of retries"
    assert job.error is not None
    assert job.error["type"] == "Unknown"


@pytest.mark.parametrize(
    ("going", "by"), [("raise", "ConnectionError"), ("exit", "SystemExit"), ("nonsense", "InvalidAnswer"),
                      ("untyped", "InvalidRequest"), ("follow", "InvalidAnswer"), ("busy", "CannotTell"),
                      ("hang", "AttemptTimeout")],
)  # fmt: skip
def test_a_hook_that_goes_wrong_is_noted_and_asked_again(house: House, book: str, going: str, by: str) -> None:
    job = house.producer.enqueue("verified.transfer", {"book": book, "goes": ["lost"], "looks": [going]})
    assert closed(job) is State.SUCCEEDED
    first, last = told(job)
    assert (first["verdict"], first["to"], first["error"]["type"], first["delay"]) == ("unknown", "in_doubt", by, EVERY)
    assert "hunter2secret" not in str(first)
    assert last["verdict"] == "happened"
    assert len(lines(book)) == 1


def test_refused_follow_ups_are_no_doubt_of_the_effect_and_nothing_is_looked_up(house: House, book: str) -> None:
    job = house.producer.enqueue("verified.refused", {"book": book})
    until(lambda: job.refresh().state is State.IN_DOUBT)
    assert job.error is not None
    assert "nobody.knows" in job.error["message"]
    house.producer.enqueue("test.add", {"a": 1, "b": 2}).get(SECONDS)
    assert lines(f"{book}.looks") == []


def test_a_person_who_resolves_a_job_goes_before_a_look_under_way(house: House, book: str) -> None:
    job = house.producer.enqueue("verified.transfer_async", {"book": book, "goes": ["lost"], "looks": ["busy"]})
    until(lambda: told(job.refresh()))
    waiting = house.producer.enqueue("verified.patiently", {"book": f"{book}2", "goes": ["lost"], "looks": ["wait"]})
    until(lambda: lines(f"{book}2.looks"))
    waiting.resolve("happened", result=41, reason="the bank said so on the phone")
    Path(f"{book}2.gate").touch()
    until(lambda: [line for line in house.worker.events("job.moved_meanwhile") if line["job_id"] == str(waiting.id)])
    assert (waiting.refresh().state, waiting.result, told(waiting)) == (State.SUCCEEDED, 41, [])
    with pytest.raises(JobNotInDoubt):
        waiting.resolve("retry", reason="late")


Started = Callable[[str], WorkerProcess]


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Started]:
    started: list[WorkerProcess] = []

    def another(name: str) -> WorkerProcess:
        started.append(start_worker(settings, tmp_path / f"{name}.log"))
        return started[-1]

    yield another
    for worker in started:
        worker.stop()


@pytest.mark.parametrize(
    ("going", "made", "whys"),
    [
        ("die after", [1], ["it happened"]),
        ("die before", [2], ["not there, once", "it did not happen"]),
    ],
)
def test_a_worker_killed_with_a_transfer_under_way_leaves_it_to_be_looked_up_by_another(
    lone_producer: Producer, start: Started, book: str, going: str, made: list[int], whys: list[str]
) -> None:
    victim = start("victim")
    job = lone_producer.enqueue("verified.transfer", {"book": book, "goes": [going, "through"]})
    victim.process.wait(SECONDS)
    start("other")
    assert closed(job) is State.SUCCEEDED
    assert [line["attempt"] for line in lines(book)] == made
    assert job.record.crashes == 1
    assert [each["why"] for each in told(job)][-len(whys) :] == whys


def test_a_worker_killed_while_it_looks_has_spent_that_look_and_nothing_else(
    lone_producer: Producer, start: Started, book: str
) -> None:
    victim = start("victim")
    job = lone_producer.enqueue("verified.transfer", {"book": book, "goes": ["lost"], "looks": ["die"]})
    victim.process.wait(SECONDS)
    assert job.refresh().state is State.IN_DOUBT
    start("other")
    assert closed(job) is State.SUCCEEDED
    assert (len(lines(book)), len(lines(f"{book}.looks")), len(told(job))) == (1, 2, 1)
    assert job.record.crashes == 0


def test_every_pool_looks_up(settings: Settings, tmp_path: Path, book: str) -> None:
    for pool in ("threads", "prefork"):
        with house_of(settings, tmp_path, pool=pool) as house:
            job = house.producer.enqueue("verified.transfer", {"book": f"{book}-{pool}", "goes": ["lost"]})
            assert closed(job) is State.SUCCEEDED

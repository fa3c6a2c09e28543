"""Limits of actions, kept by real workers: what is over one waits in the ledger, seen and counted, and is done."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from producer import Producer, Settings, State
from producer.job import Job
from tests.houses import start_worker, until
from tests.integration.test_statements import settlement, writer_of

SECONDS = 60.0
JOBS = 60


@pytest.fixture(scope="module")
def crowd(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Producer]:
    """A producer and two workers, each of which would run all of the jobs at once."""
    folder = tmp_path_factory.mktemp("crowd")
    workers = [start_worker(module_settings, folder / f"{name}.log", concurrency=100) for name in ("one", "two")]
    producer = Producer(module_settings)
    yield producer
    producer.close()
    for worker in workers:
        worker.stop()


def enqueue(producer: Producer, action: str, log: Path) -> list[Job]:
    requests = [{"action": action, "params": {"log": str(log)}, "idempotency_key": f"{log}{n}"} for n in range(JOBS)]
    return producer.enqueue_many(requests)


def why_held(jobs: list[Job]) -> dict[str, int]:
    """How often the jobs were held, by the reason that their histories give."""
    found: dict[str, int] = defaultdict(int)
    for job in jobs:
        for event in job.events:
            if event.kind == "held" and event.data is not None:
                found[event.data["why"]] += 1
    return found


def most_at_once(log: Path, *, by_process: bool) -> int:
    marks: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for mark in map(json.loads, log.read_text().splitlines()):
        marks[mark["pid"] if by_process else 0].append((mark["at"], mark["change"]))
    return max(max(accumulate(change for _, change in sorted(each))) for each in marks.values())


@pytest.mark.parametrize(
    ("action", "by_process", "why"),
    [("test.narrow", False, "fleet limit reached"), ("test.narrow_here", True, "worker limit reached")],
)
def test_no_more_of_an_action_run_at_once_than_it_allows(
    crowd: Producer,
    tmp_path: Path,
    action: str,
    by_process: bool,  # noqa: FBT001  pytest's way
    why: str,
) -> None:
    jobs = enqueue(crowd, action, tmp_path / "log")
    assert {job.wait(SECONDS).state for job in jobs} == {State.SUCCEEDED}
    assert most_at_once(tmp_path / "log", by_process=by_process) <= 2
    assert set(why_held(jobs)) == {why}
    assert {job.record.attempt for job in jobs} == {1}  # a hold spends none


def test_a_job_over_the_rate_waits_until_the_moment_that_it_has_booked(crowd: Producer, tmp_path: Path) -> None:
    jobs = enqueue(crowd, "test.rated", tmp_path / "log")
    assert {job.wait(SECONDS).state for job in jobs} == {State.SUCCEEDED}
    held = why_held(jobs)
    assert set(held) == {"rate limit reached"}
    assert held["rate limit reached"] < JOBS  # each that was over it waited once
    began = min(event.at for job in jobs for event in job.events if event.kind == "claimed")
    ended = max(job.record.finished_at for job in jobs if job.record.finished_at)
    assert (ended - began).total_seconds() > (JOBS - 40) / 40 * 0.9  # a second's worth at once, and then the rate


def test_who_is_over_the_rate_waits_on_nobody_and_is_told_so(crowd: Producer, tmp_path: Path) -> None:
    jobs = enqueue(crowd, "test.rated_slowly", tmp_path / "log")
    over = until(lambda: [job for job in jobs if job.refresh().record.waiting_for == "rate"])[-1]
    assert over.record.waiting_on is None
    assert "as many of its action as may begin in that time" in crowd.explain(over.id).headline
    for job in jobs:
        job.cancel("nobody waits for it")


def test_those_who_stood_in_a_line_that_was_lost_are_performed_within_seconds(
    settings: Settings, lone_producer: Producer, engine: Engine, tmp_path: Path
) -> None:
    jobs = enqueue(lone_producer, "test.narrow", tmp_path / "log")
    gone = writer_of(engine, "gone")
    for attempt in gone.claim("test.narrow", 1, [job.id for job in jobs]):
        # As where a long line was reckoned with, which went with Redis.
        gone.settle([settlement(attempt, State.WAITING, was=State.CLAIMED, waiting_for="concurrency", delay=600.0)])
    assert {job.refresh().record.waiting_for for job in jobs} == {"concurrency"}
    assert lone_producer.flush()
    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushdb()
    worker = start_worker(settings, tmp_path / "worker.log", concurrency=100)
    try:
        assert {job.wait(SECONDS).state for job in jobs} == {State.SUCCEEDED}
        assert worker.events("limit.lined_up")
    finally:
        worker.stop()
    assert most_at_once(tmp_path / "log", by_process=False) <= 2


def test_jobs_in_line_that_are_cancelled_keep_nobody_waiting(crowd: Producer, tmp_path: Path) -> None:
    there = {"there": str(tmp_path / "there")}

    def ask(name: str) -> Job:
        return crowd.enqueue("test.narrow_until", there, idempotency_key=name)

    running = [ask(f"running-{n}") for n in range(2)]
    until(lambda: all(job.refresh().state is State.RUNNING for job in running))
    unwanted, last = [ask(f"unwanted-{n}") for n in range(JOBS)], ask("last")
    until(lambda: all(job.refresh().record.waiting_for == "concurrency" for job in [*unwanted, last]))
    assert {job.cancel() for job in unwanted} == {"cancelled"}
    (tmp_path / "there").touch()
    # With five seconds' patience for each of those who do not come it would be most of a minute.
    assert last.wait(SECONDS / 3).state is State.SUCCEEDED

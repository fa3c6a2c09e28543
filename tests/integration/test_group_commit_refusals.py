"""Group commit where a row is refused, or locked by somebody else: its neighbours are written all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DataError, DBAPIError, OperationalError

from producer import Producer, Settings, State
from producer.job import Job
from producer.ledger.engine import open_engine
from tests.integration.writers import SUCCEEDED, WORKER, Hands, enqueued, hands, history, patience, running
from tests.loops import on_a_loop
from worker.attempt import Intent
from worker.statements import Wanted

LOCK_NOT_AVAILABLE = "55P03"
# Waited for one after the other, for a quarter of a second each, so many locked rows would outlast the time by far.
MANY, SOON_SECONDS = 60, 6.0


@pytest.fixture
def worker(settings: Settings) -> Iterator[Hands]:
    made = open_engine(settings.database_url, connections=1, name=WORKER)
    yield hands(made)
    made.dispose()


@contextmanager
def locked(engine: Engine, *jobs: Job) -> Iterator[None]:
    """Be somebody who has the jobs' rows locked, in a transaction that goes on."""
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as somebody, somebody.begin():
        somebody.execute(text("SELECT FROM jobs WHERE id = ANY(:ids) FOR UPDATE"), {"ids": [job.id for job in jobs]})
        yield


def pgcode(error: DBAPIError) -> object:
    return getattr(error.orig, "pgcode", None)


@pytest.mark.parametrize(
    "refused", [{"kind": "U+0000 \x00"}, {"tokens_in": 2**80}], ids=["not a text", "not a number of its column"]
)
@on_a_loop
async def test_an_outcome_that_postgres_refuses_fails_alone(
    engine: Engine, lone_producer: Producer, worker: Hands, refused: dict[str, Any]
) -> None:
    jobs = enqueued(lone_producer, 4)
    attempts = running(engine, jobs)
    steps = [worker.settle(attempt, **(refused if number == 2 else {})) for number, attempt in enumerate(attempts)]
    answers = await worker.gathered(*steps)
    assert [answers[number] for number in (0, 1, 3)] == ["settled"] * 3
    assert isinstance(answers[2], DataError)
    assert [job.refresh().state for job in jobs] == [State.SUCCEEDED, State.SUCCEEDED, State.RUNNING, State.SUCCEEDED]
    assert await worker.settle(attempts[2]) == "settled"  # in other words


@on_a_loop
async def test_an_intent_that_postgres_refuses_fails_alone(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    first, bad, good = running(engine, enqueued(lone_producer, 3))
    refused = Intent(job_id=bad.job_id, fence=bad.fence, effect="\x00", repeat_seconds=None, data={})
    steps = worker.intend(first), worker.writer.intend(refused, seconds_left=patience()), worker.intend(good)
    answers = await worker.gathered(*steps)
    assert (answers[0], answers[2]) == ("intended", "intended")
    assert isinstance(answers[1], DataError)


@on_a_loop
async def test_a_claim_that_the_driver_refuses_fails_alone_also_within_one_ring(
    lone_producer: Producer, worker: Hands
) -> None:
    first, bad, good, other = enqueued(lone_producer, 4)
    ring = [Wanted("test.\x00", 1, bad.id), Wanted("test.add", 1, good.id)]
    answers = await worker.gathered(worker.claim(first), worker.writer.claim(ring), worker.claim(other))
    assert [attempt.job_id for attempt in answers[1]] == [good.id]
    assert (answers[0], answers[2]) == ([first.id], [other.id])


@on_a_loop
async def test_a_row_that_somebody_else_has_locked_does_not_hold_up_its_neighbours(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    *jobs, later = enqueued(lone_producer, 7)
    attempts = running(engine, jobs)
    with locked(engine, jobs[2]):
        tasks = await worker.begun(*map(worker.settle, attempts))
        neighbours = [task for number, task in enumerate(tasks) if number != 2]
        assert await asyncio.gather(*neighbours) == ["settled"] * 5
        assert await worker.claim(later) == [later.id]
        assert not tasks[2].done()
    assert await tasks[2] == "settled"
    assert history(jobs[2]) == SUCCEEDED


@on_a_loop
async def test_rows_that_somebody_else_has_locked_hold_up_nobody_however_many_they_are(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    *held, free, later = enqueued(lone_producer, MANY + 2)
    attempts = running(engine, [*held, free])
    with locked(engine, *held):
        tasks = await worker.begun(*map(worker.settle, attempts))
        assert await asyncio.wait_for(asyncio.shield(tasks[-1]), SOON_SECONDS) == "settled"
        assert await asyncio.wait_for(worker.claim(later), SOON_SECONDS) == [later.id]
        assert not any(task.done() for task in tasks[:-1])
    assert await asyncio.gather(*tasks) == ["settled"] * (MANY + 1)


@on_a_loop
async def test_a_row_that_stays_locked_for_longer_than_it_can_wait_is_given_up_unwritten(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    (job,) = enqueued(lone_producer, 1)
    (attempt,) = running(engine, [job])
    left = iter([9.0, 9.0, 0.0])
    with locked(engine, job), pytest.raises(OperationalError) as given_up:
        await worker.settle(attempt, seconds_left=lambda: next(left))
    assert pgcode(given_up.value) == LOCK_NOT_AVAILABLE
    assert worker.statements.rows("settle") == [1, 1, 1]
    assert job.refresh().state is State.RUNNING
    assert await worker.settle(attempt) == "settled"

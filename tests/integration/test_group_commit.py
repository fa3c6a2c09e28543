"""Group commit: steps that wait together share a statement, and each is answered for itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from producer import Producer, Settings, State
from producer.ledger.engine import open_engine
from tests.integration.test_statements import expire_leases, take_over
from tests.integration.writers import SUCCEEDED, WORKER, Hands, Statement, enqueued, hands, history, running
from tests.loops import on_a_loop
from worker.group_commit import BATCH

MANY = 200


@pytest.fixture
def worker_engine(settings: Settings) -> Iterator[Engine]:
    made = open_engine(settings.database_url, connections=1, name=WORKER)
    yield made
    made.dispose()


@pytest.fixture
def worker(worker_engine: Engine) -> Hands:
    return hands(worker_engine)


@on_a_loop
async def test_steps_that_wait_together_share_a_statement(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    jobs = enqueued(lone_producer, 1 + MANY)
    claimed = await worker.gathered(*(worker.claim(job) for job in jobs))
    assert claimed == [[job.id] for job in jobs]
    assert worker.statements.rows("claim") == [1, MANY]
    with engine.connect() as connection:
        fences = connection.execute(text("SELECT fence FROM jobs")).scalars().all()
    assert fences == [1] * len(jobs)


@on_a_loop
async def test_intents_and_outcomes_share_theirs_too(engine: Engine, lone_producer: Producer, worker: Hands) -> None:
    jobs = enqueued(lone_producer, 1 + MANY)
    attempts = running(engine, jobs)
    assert set(await worker.gathered(*map(worker.intend, attempts))) == {"intended"}
    assert set(await worker.gathered(*map(worker.settle, attempts))) == {"settled"}
    assert (worker.statements.rows("intend"), worker.statements.rows("settle")) == ([1, MANY], [1, MANY])
    assert lone_producer.counts() == {State.SUCCEEDED: len(jobs)}


@on_a_loop
async def test_a_crowd_is_written_in_statements_of_a_bounded_size(lone_producer: Producer, worker: Hands) -> None:
    first, *crowd = enqueued(lone_producer, 1 + BATCH + 50)
    assert await worker.gathered(worker.claim(first), worker.claim(*crowd)) == [
        [first.id],
        [job.id for job in crowd],
    ]
    assert worker.statements.rows("claim") == [1, BATCH, 50]


@on_a_loop
async def test_what_ends_attempts_is_written_before_what_begins_them(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    first, fresh, *rest = enqueued(lone_producer, 4)
    beginning, ending = running(engine, rest)
    await worker.gathered(worker.claim(first), worker.claim(fresh), worker.intend(beginning), worker.settle(ending))
    assert worker.statements.sent == [Statement(name, 1) for name in ("claim", "settle", "intend", "claim")]


@on_a_loop
async def test_a_lone_step_is_written_at_once_and_wakes_the_writer_once(
    worker_engine: Engine, lone_producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts: list[float | None] = []

    class Watched(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            timeouts.append(timeout)
            return super().wait(timeout)

    with monkeypatch.context() as patch:
        patch.setattr("worker.group_commit.threading.Condition", Watched)
        worker = hands(worker_engine)
    jobs = enqueued(lone_producer, 20)
    for job in jobs:
        assert await worker.claim(job) == [job.id]
    assert worker.statements.rows("claim") == [1] * len(jobs)
    assert set(timeouts) <= {None}  # it never waits for time to pass
    assert len(timeouts) <= len(jobs)


@on_a_loop
async def test_a_job_that_is_asked_for_twice_in_one_round_is_claimed_once(
    lone_producer: Producer, worker: Hands
) -> None:
    first, twice, other = enqueued(lone_producer, 3)
    answers = await worker.gathered(*(worker.claim(job) for job in (first, twice, twice, other)))
    assert answers == [[first.id], [twice.id], [], [other.id]]
    assert worker.statements.rows("claim") == [1, 2, 1]
    assert history(twice) == ["accepted", "claimed"]


@on_a_loop
async def test_an_outcome_that_is_handed_in_twice_in_one_round_lands_once(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    first, twice = enqueued(lone_producer, 2)
    attempts = running(engine, [first, twice])
    answers = await worker.gathered(*(worker.settle(attempt) for attempt in (*attempts, attempts[1])))
    assert answers == ["settled", "settled", "repeated"]
    assert history(twice) == SUCCEEDED


@on_a_loop
async def test_a_step_without_rows_is_answered_without_a_statement(worker: Hands) -> None:
    assert await worker.claim() == []
    assert worker.statements.sent == []


@pytest.mark.parametrize("order", [("stale", "live"), ("live", "stale")], ids=" first, then ".join)
@on_a_loop
async def test_two_attempts_at_a_job_that_settle_in_one_round_are_answered_each_under_its_own_fence(
    engine: Engine, lone_producer: Producer, worker: Hands, order: tuple[str, ...]
) -> None:
    other, twice = enqueued(lone_producer, 2)
    (stale,) = running(engine, [twice])
    expire_leases(engine)
    assert take_over(engine) == 1
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET due_at = clock_timestamp()"))
    (first,), (live,) = running(engine, [other]), running(engine, [twice])
    steps = {"stale": worker.settle(stale, result="stale"), "live": worker.settle(live, result="live")}
    answers = await worker.gathered(worker.settle(first), *(steps[which] for which in order))
    assert dict(zip(order, answers[1:], strict=True)) == {"stale": "late", "live": "settled"}
    assert twice.refresh().result == "live"


@on_a_loop
async def test_one_who_is_cut_off_while_he_waits_learns_how_far_he_came_and_disturbs_nobody(
    lone_producer: Producer, worker: Hands
) -> None:
    jobs = enqueued(lone_producer, 5)
    tasks = await worker.begun(*(worker.claim(job) for job in jobs))
    for cut_off in tasks[1:3]:
        assert cut_off.cancel()
    assert await asyncio.gather(*tasks) == [[job.id] for job in jobs]
    assert worker.statements.rows("claim") == [1, 4]

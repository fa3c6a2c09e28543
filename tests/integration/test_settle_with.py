"""Outcomes that bring follow-ups along: one transaction, of which nothing is ever half there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from producer import Producer, Request, Settings, State
from producer.envelope import Envelope
from producer.errors import IdempotencyConflict
from producer.ledger.engine import open_engine
from producer.sealing import seal_by
from tests.houses import until
from tests.integration.test_statements import expire_leases, take_over
from tests.integration.writers import SUCCEEDED, WORKER, Hands, enqueued, hands, history, running
from tests.loops import on_a_loop
from worker import settle_with
from worker.attempt import Attempt


@pytest.fixture
def rung() -> list[Envelope]:
    """The follow-ups that the worker was told to ring for."""
    return []


@pytest.fixture
def worker(settings: Settings, rung: list[Envelope]) -> Iterator[Hands]:
    made = open_engine(settings.database_url, connections=1, name=WORKER)
    yield hands(made, on_accepted=rung.extend)
    made.dispose()


def asked(producer: Producer, parent: Attempt, *keys: str, a: int = 1) -> tuple[Envelope, ...]:
    """Follow-ups, sealed as the attempt's worker would."""
    known = producer.actions()
    requests = [Request(action="test.add", params={"a": a, "b": 0}, idempotency_key=key) for key in keys]
    return tuple(
        seal_by(known, request, tenant="default", queue="actions", parent_job_id=parent.job_id) for request in requests
    )


def children(engine: Engine, parent: UUID) -> list[str]:
    """The keys of the follow-ups that are in the ledger, each with a decision and one event."""
    with engine.connect() as connection:
        found = connection.execute(
            text("""
                SELECT j.idempotency_key, (SELECT count(*) FROM events e WHERE e.job_id = j.id) AS events
                FROM jobs j JOIN decisions d ON d.job_id = j.id WHERE d.parent_job_id = :parent ORDER BY 1
            """),
            {"parent": parent},
        ).all()
        whole = connection.execute(text("SELECT count(*) = (SELECT count(*) FROM decisions) FROM jobs")).scalar()
    assert whole
    assert {row.events for row in found} <= {1}
    return [row.idempotency_key for row in found]


@contextmanager
def in_flight(engine: Engine, producer: Producer, key: str) -> Iterator[None]:
    """Be somebody whose transaction has accepted this key, and takes it back at the end."""
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as somebody:
        transaction = somebody.begin()
        producer.enqueue("test.add", {"a": 9, "b": 9}, idempotency_key=key, connection=somebody)
        yield
        transaction.rollback()


@on_a_loop
async def test_follow_ups_land_with_their_outcome_and_are_rung_for(
    engine: Engine, lone_producer: Producer, worker: Hands, rung: list[Envelope]
) -> None:
    (job,) = enqueued(lone_producer, 1)
    (attempt,) = running(engine, [job])
    assert await worker.settle(attempt, follow_ups=asked(lone_producer, attempt, "x", "y")) == "settled"
    assert children(engine, job.id) == ["x", "y"]
    assert [envelope.idempotency_key for envelope in rung] == ["x", "y"]
    assert history(job) == SUCCEEDED


@on_a_loop
async def test_an_outcome_that_is_repeated_accepts_its_follow_ups_once(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    (job,) = enqueued(lone_producer, 1)
    (attempt,) = running(engine, [job])
    for answer in ("settled", "repeated"):
        follow_ups = asked(lone_producer, attempt, f"x-{answer}")
        assert await worker.settle(attempt, follow_ups=follow_ups) == answer
    assert children(engine, job.id) == ["x-settled"]


@on_a_loop
async def test_a_late_outcome_accepts_none(
    engine: Engine, lone_producer: Producer, worker: Hands, rung: list[Envelope]
) -> None:
    (job,) = enqueued(lone_producer, 1)
    (stale,) = running(engine, [job])
    expire_leases(engine)
    assert take_over(engine) == 1
    assert await worker.settle(stale, follow_ups=asked(lone_producer, stale, "x")) == "late"
    assert children(engine, job.id) == []
    assert rung == []
    assert history(job)[-1] == "late_result"


@on_a_loop
async def test_a_refused_follow_up_takes_the_whole_outcome_back_and_the_job_is_still_its_worker_s(
    engine: Engine, lone_producer: Producer, worker: Hands, rung: list[Envelope]
) -> None:
    job, standing = enqueued(lone_producer, 2)
    (attempt,) = running(engine, [job])
    follow_ups = asked(lone_producer, attempt, "x", standing.record.idempotency_key, a=77)
    with pytest.raises(IdempotencyConflict, match=r"differs at params\.a"):
        await worker.settle(attempt, follow_ups=follow_ups)
    assert children(engine, job.id) == []
    assert rung == []
    assert (job.refresh().state, history(job)[-1]) == (State.RUNNING, "intended")
    failed = worker.settle(attempt, becomes=State.FAILED, result=None, error={"type": "E", "message": "no"})
    assert await failed == "settled"


@on_a_loop
async def test_neighbours_of_a_refused_one_are_settled_with_theirs(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    standing, *jobs = enqueued(lone_producer, 7)
    attempts = running(engine, jobs)
    steps = []
    for number, attempt in enumerate(attempts):
        if number == 3:
            follow_ups = asked(lone_producer, attempt, "x3", standing.record.idempotency_key, a=77)
        else:
            follow_ups = asked(lone_producer, attempt, f"x{number}") if number % 2 else ()
        steps.append(worker.settle(attempt, follow_ups=follow_ups))
    answers = await worker.gathered(*steps)
    assert isinstance(answers[3], IdempotencyConflict)
    assert [answer for answer in answers if isinstance(answer, str)] == ["settled"] * 5
    assert [children(engine, job.id) for job in jobs] == [[], ["x1"], [], [], [], ["x5"]]


@on_a_loop
async def test_two_attempts_that_ask_for_one_key_get_one_job(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    first, *jobs = enqueued(lone_producer, 3)
    (ahead,), attempts = running(engine, [first]), running(engine, jobs)
    steps = [worker.settle(attempt, follow_ups=asked(lone_producer, attempt, "shared")) for attempt in attempts]
    assert await worker.gathered(worker.settle(ahead), *steps) == ["settled"] * 3
    assert sorted(children(engine, job.id) for job in jobs) == [[], ["shared"]]


@on_a_loop
async def test_two_attempts_that_ask_for_different_things_under_one_key_are_answered_each_for_itself(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    first, *jobs = enqueued(lone_producer, 3)
    (ahead,), attempts = running(engine, [first]), running(engine, jobs)
    steps = [
        worker.settle(attempt, follow_ups=asked(lone_producer, attempt, "shared", a=number))
        for number, attempt in enumerate(attempts)
    ]
    answers = await worker.gathered(worker.settle(ahead), *steps)
    assert [type(answer) for answer in answers[1:]] == [str, IdempotencyConflict]
    assert [children(engine, job.id) for job in jobs] == [["shared"], []]


@on_a_loop
async def test_a_key_that_another_transaction_is_accepting_is_waited_for_without_holding_up_others(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    first, job, *others = enqueued(lone_producer, 5)
    (ahead,), (attempt,), rest = running(engine, [first]), running(engine, [job]), running(engine, others)
    with in_flight(engine, lone_producer, "x"):
        waits = worker.settle(attempt, follow_ups=asked(lone_producer, attempt, "x"))
        neighbours = [worker.settle(each, follow_ups=asked(lone_producer, each, str(each.fence))) for each in rest]
        tasks = await worker.begun(worker.settle(ahead), waits, *neighbours)
        assert await asyncio.gather(tasks[0], *tasks[2:]) == ["settled"] * 4
        assert job.refresh().state is State.RUNNING
    assert await tasks[1] == "settled"
    assert children(engine, job.id) == ["x"]


@on_a_loop
async def test_a_connection_lost_between_the_outcome_and_its_follow_ups_leaves_neither_until_both_are_there(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    (job,) = enqueued(lone_producer, 1)
    (attempt,) = running(engine, [job])
    with in_flight(engine, lone_producer, "x"):
        task = asyncio.create_task(worker.settle(attempt, follow_ups=asked(lone_producer, attempt, "w", "x")))
        killed = await asyncio.to_thread(until, lambda: _kill_while_it_waits(engine))
        assert killed
        assert (job.refresh().state, children(engine, job.id)) == (State.RUNNING, [])
    assert await task == "settled"
    assert children(engine, job.id) == ["w", "x"]
    assert history(job) == SUCCEEDED


@on_a_loop
async def test_very_many_follow_ups_are_accepted_in_transactions_of_a_bounded_size(
    engine: Engine, lone_producer: Producer, worker: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle_with, "PORTION", 5)
    sizes: list[int] = []
    real = settle_with._accept  # noqa: SLF001  to count what each transaction accepts

    def counted(connection: object, envelopes: Sequence[Envelope]) -> list[Envelope]:
        sizes.append(len(envelopes))
        return real(connection, envelopes)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(settle_with, "_accept", counted)
    first, *jobs = enqueued(lone_producer, 6)
    (ahead,), attempts = running(engine, [first]), running(engine, jobs)
    steps = [
        worker.settle(attempt, follow_ups=asked(lone_producer, attempt, f"{number}-a", f"{number}-b"))
        for number, attempt in enumerate(attempts)
    ]
    assert await worker.gathered(worker.settle(ahead), *steps) == ["settled"] * 6
    assert sizes == [4, 4, 2]


def _kill_while_it_waits(engine: Engine) -> int | None:
    with engine.connect() as connection:
        return connection.execute(
            text(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = :worker AND wait_event_type = 'Lock' AND query LIKE '%ordinal%'"
            ),
            {"worker": WORKER},
        ).scalar()

"""Whose a fence is: of the worker that claimed under it, whatever a Postgres that crashed has forgotten.

Claims, and the intents of pure actions, are committed without waiting for the disk. A Postgres that crashes may forget
one, and give its fence anew.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from producer import Producer, State
from producer.job import Job
from tests.houses import until
from tests.integration.test_statements import (
    Hand,
    claimed,
    expire_leases,
    intent,
    settlement,
    take_over,
    writer_of,
)
from tests.integration.writers import patience
from tests.locks import waiting_for_locks
from worker.attempt import Attempt
from worker.leases import Leases
from worker.statements import Wanted
from worker.writer import Writer


@pytest.fixture
def job(lone_producer: Producer) -> Job:
    return lone_producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key="k")


@pytest.fixture
def forgotten(engine: Engine) -> Hand:
    return writer_of(engine, "forgotten")


@pytest.fixture
def other(engine: Engine) -> Hand:
    return writer_of(engine, "other")


@pytest.fixture
def attempts(engine: Engine, job: Job, forgotten: Hand, other: Hand) -> tuple[Attempt, Attempt]:
    """A claim that was forgotten, and another worker's under the same fence."""
    first = claimed(forgotten, job)
    forget_claim(engine)
    second = claimed(other, job)
    assert first.lease == second.lease
    return first, second


def forget_claim(engine: Engine) -> None:
    """Undo the one claim there is, as a Postgres does that crashed before it was on the disk."""
    with engine.connect() as connection:
        connection.execute(text("ALTER TABLE events DISABLE TRIGGER events_append_only"))
        connection.execute(text("DELETE FROM events WHERE kind = 'claimed'"))
        connection.execute(text("ALTER TABLE events ENABLE TRIGGER events_append_only"))
        connection.execute(
            text(
                "UPDATE jobs SET state = 'queued', fence = fence - 1, lease_owner = NULL, lease_expires_at = NULL,"
                " last_seq = last_seq - 1"
            )
        )


def kinds(job: Job) -> list[str]:
    return [event.kind for event in job.events]


def test_a_claim_that_was_forgotten_and_made_anew_by_the_same_process_is_its_first_attempt_s_and_no_second_one_s(
    engine: Engine, job: Job
) -> None:
    leases = Leases(engine, worker="w1", lease_seconds=30.0, renew_seconds=10.0)
    writer = Writer(engine, worker="w1", lease_seconds=30.0, on_claimed=leases.keep)

    async def go() -> None:
        (first,) = await writer.claim([Wanted("test.add", 1, job.id)])
        with leases.held(*first.lease):
            forget_claim(engine)
            assert await writer.claim([Wanted("test.add", 1, job.id)]) == []
            assert (job.refresh().state, job.record.fence) == (State.CLAIMED, first.fence)
            assert await writer.intend(intent(first, "unsafe", 0.0), seconds_left=patience()) == "intended"
            assert leases.seconds_left(*first.lease) > 0
        assert leases.count == 0

    asyncio.run(go())


def test_an_intent_is_not_granted_under_a_fence_that_is_another_worker_s_by_now(
    job: Job, forgotten: Hand, other: Hand, attempts: tuple[Attempt, Attempt]
) -> None:
    first, second = attempts
    assert forgotten.intend([intent(first)]) == {}
    assert other.intend([intent(second)]) == {job.id: "intended"}
    assert forgotten.intend([intent(first)]) == {}


def test_an_outcome_under_another_workers_fence_is_late_and_changes_nothing(
    job: Job, forgotten: Hand, other: Hand, attempts: tuple[Attempt, Attempt]
) -> None:
    first, second = attempts
    other.intend([intent(second)])
    assert forgotten.settle([settlement(first, result="first")]) == {job.id: "late"}
    assert job.refresh().state is State.RUNNING
    late = job.events[-1]
    assert (late.kind, late.fence, late.worker) == ("late_result", first.fence, "forgotten")
    assert late.data == {"would_be": "succeeded", "result": "first", "error": None}
    assert other.settle([settlement(second, result="second")]) == {job.id: "settled"}
    assert job.refresh().result == "second"


def test_an_outcome_is_late_also_where_the_fences_owner_has_settled(
    job: Job, forgotten: Hand, other: Hand, attempts: tuple[Attempt, Attempt]
) -> None:
    first, second = attempts
    other.intend([intent(second)])
    assert other.settle([settlement(second, result="second")]) == {job.id: "settled"}
    assert forgotten.settle([settlement(first, result="first")]) == {job.id: "late"}
    assert other.settle([settlement(second, result="second")]) == {job.id: "repeated"}
    assert job.refresh().result == "second"
    assert kinds(job) == ["accepted", "claimed", "intended", "succeeded", "late_result"]


def test_a_lease_is_not_renewed_under_another_workers_fence(
    forgotten: Hand, other: Hand, attempts: tuple[Attempt, Attempt]
) -> None:
    first, second = attempts
    assert forgotten.renew(first.lease) == {first.lease: False}
    assert other.renew(second.lease) == {second.lease: True}


def test_an_outcome_whose_intent_was_forgotten_is_late_and_not_said_to_have_landed(
    engine: Engine, job: Job, other: Hand
) -> None:
    attempt = claimed(other, job)  # and the intent, of a pure action, is one that the ledger knows nothing of
    assert other.settle([settlement(attempt, result=3)]) == {job.id: "late"}
    assert job.refresh().state is State.CLAIMED
    expire_leases(engine)
    assert take_over(engine) == 1
    assert job.refresh().state is State.WAITING


def test_an_outcome_that_landed_is_answered_so_also_when_another_worker_has_claimed_the_job_since(
    job: Job, forgotten: Hand, other: Hand
) -> None:
    attempt = claimed(other, job)
    other.intend([intent(attempt)])
    again = settlement(attempt, State.WAITING, waiting_for="retry", delay=0.0, kind="attempt_failed")
    assert other.settle([again]) == {job.id: "settled"}
    claimed(forgotten, job)
    assert other.settle([again]) == {job.id: "repeated"}
    assert kinds(job) == ["accepted", "claimed", "intended", "attempt_failed", "claimed"]


def test_an_outcome_that_comes_late_is_noted_once_however_often_it_comes(engine: Engine, job: Job, other: Hand) -> None:
    attempt = claimed(other, job)
    other.intend([intent(attempt)])
    expire_leases(engine)
    assert take_over(engine) == 1
    for _ in range(2):
        assert other.settle([settlement(attempt, result=3)]) == {job.id: "late"}
    assert kinds(job) == ["accepted", "claimed", "intended", "rescued", "late_result"]


def test_an_outcome_whose_first_try_lands_while_its_repeat_waits_for_it_is_repeated(
    engine: Engine, job: Job, other: Hand
) -> None:
    attempt = claimed(other, job)
    other.intend([intent(attempt)])
    outcome = settlement(attempt, result=3)
    # Somebody has the row; both tries wait for it, so that neither knows of the other as it begins.
    with ThreadPoolExecutor(2) as threads, engine.connect().execution_options(isolation_level="READ COMMITTED") as held:
        transaction = held.begin()
        held.execute(text("SELECT FROM jobs FOR UPDATE"))
        tries = [threads.submit(other.settle, [outcome]) for _ in range(2)]
        until(lambda: waiting_for_locks(engine) == 2)
        transaction.rollback()
        answers = [each.result()[job.id] for each in tries]
    assert sorted(answers) == ["repeated", "settled"]
    assert kinds(job) == ["accepted", "claimed", "intended", "succeeded"]

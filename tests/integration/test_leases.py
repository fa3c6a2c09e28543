"""Leases as one process keeps them: each attempt's for itself, from its claim on, whoever else is in the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from uuid import UUID

import pytest
from celery import Celery
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from producer import Producer, Settings, State
from producer.job import Job
from tasks import load
from tests.gates import Gate
from tests.houses import ACTION_MODULES, until
from tests.integration.test_statements import claimed, expire_leases, take_over, writer_of
from worker.attempt import Attempt
from worker.leases import Leases
from worker.loop import process_loop
from worker.parts import assemble
from worker.runner import Runner
from worker.settings import WorkerSettings

SECONDS = 40.0
LEASE_SECONDS, RENEW_SECONDS = 30.0, 0.04


@pytest.fixture
def jobs(lone_producer: Producer) -> list[Job]:
    """Three of them, by their ids."""
    requests = [{"action": "test.add", "params": {"a": n, "b": 0}, "idempotency_key": f"k{n}"} for n in range(3)]
    return sorted(lone_producer.enqueue_many(requests), key=lambda job: job.id)


@pytest.fixture
def renewed() -> list[set[UUID]]:
    """What each renewal told of the jobs that are still ours."""
    return []


@pytest.fixture
def leases(engine: Engine, renewed: list[set[UUID]]) -> Leases:
    """A process's leases, renewed as often as can be."""
    return Leases(
        engine, worker="w1", lease_seconds=LEASE_SECONDS, renew_seconds=RENEW_SECONDS, on_renewed=renewed.append
    )


@contextmanager
def held(leases: Leases, attempt: Attempt, claimed_at: float) -> Iterator[None]:
    """Hold what was claimed, as a worker does."""
    leases.keep([attempt.lease], claimed_at)
    with leases.held(*attempt.lease):
        yield


def two_attempts(engine: Engine, job: Job) -> tuple[Attempt, Attempt]:
    """Claim a job, lose it, and claim it anew: both by one worker."""
    hand = writer_of(engine)
    first = claimed(hand, job)
    expire_leases(engine)
    assert take_over(engine) == 1
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET due_at = clock_timestamp() WHERE id = :id"), {"id": job.id})
    return first, claimed(hand, job)


def lease_ends(engine: Engine) -> Mapping[UUID, datetime]:
    """When the leases of the jobs end, as the ledger has it."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, lease_expires_at FROM jobs WHERE lease_expires_at IS NOT NULL"))
        return {row.id: row.lease_expires_at for row in rows}


def are_renewed(engine: Engine, *job_ids: UUID) -> Callable[[], bool]:
    """Whether these jobs' leases are renewed from now on."""
    before = lease_ends(engine)
    return lambda: (now := lease_ends(engine)).keys() >= set(job_ids) and all(now[i] > before[i] for i in job_ids)


def test_a_stale_attempt_has_no_time_by_the_lease_of_a_later_one(
    engine: Engine, jobs: list[Job], leases: Leases
) -> None:
    first, second = two_attempts(engine, jobs[0])
    with held(leases, first, time.monotonic()), held(leases, second, time.monotonic()):
        until(lambda: leases.seconds_left(*first.lease) <= 0)
        until(are_renewed(engine, jobs[0].id))
        assert leases.seconds_left(*first.lease) <= 0
        assert leases.seconds_left(*second.lease) > 0


def test_a_stale_attempt_that_ends_leaves_a_later_one_its_lease(
    engine: Engine, jobs: list[Job], leases: Leases
) -> None:
    first, second = two_attempts(engine, jobs[0])
    with ExitStack() as stale, held(leases, second, time.monotonic()):
        stale.enter_context(held(leases, first, time.monotonic()))
        stale.close()
        assert leases.count == 1
        until(are_renewed(engine, jobs[0].id))
        assert leases.seconds_left(*second.lease) > 0
    assert leases.count == 0


def test_of_two_attempts_at_a_job_the_stale_one_alone_is_lost_and_limits_hear_that_the_job_is_ours(
    engine: Engine, jobs: list[Job], leases: Leases, renewed: list[set[UUID]]
) -> None:
    first, second = two_attempts(engine, jobs[0])
    leases.settling(*second.lease)  # its outcome is no excuse for the other
    with capture_logs() as logs, held(leases, first, time.monotonic()), held(leases, second, time.monotonic()):
        until(lambda: leases.count == 1)
        until(are_renewed(engine, jobs[0].id))
        until(lambda: {jobs[0].id} in renewed)
    lost = [(line["job_id"], line["fence"]) for line in logs if line["event"] == "lease.lost"]
    assert lost == [(str(jobs[0].id), first.fence)]


def test_a_lease_that_ends_by_its_own_outcome_was_not_lost(engine: Engine, jobs: list[Job], leases: Leases) -> None:
    attempt = claimed(writer_of(engine), jobs[0])
    with capture_logs() as logs, held(leases, attempt, time.monotonic()):
        leases.settling(*attempt.lease)
        expire_leases(engine)
        until(lambda: leases.count == 0)
    assert [line for line in logs if line["event"] == "lease.lost"] == []


def test_a_job_that_somebody_else_has_locked_does_not_keep_the_others_from_being_renewed(
    engine: Engine, jobs: list[Job], leases: Leases
) -> None:
    attempts = [claimed(writer_of(engine), job) for job in jobs]
    locked, *others = jobs
    with ExitStack() as stack, engine.connect().execution_options(isolation_level="READ COMMITTED") as somebody:
        transaction = somebody.begin()
        somebody.execute(text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": locked.id})
        logs = stack.enter_context(capture_logs())
        for attempt in attempts:
            stack.enter_context(held(leases, attempt, time.monotonic()))
        until(are_renewed(engine, *(job.id for job in others)))
        until(are_renewed(engine, *(job.id for job in others)))
        assert leases.count == 3  # it may have been renewed in vain, but it is not lost
        transaction.rollback()
        until(are_renewed(engine, locked.id))
    assert logs == []


# ---- from the claim on -----------------------------------------------------------------------------------------


@pytest.fixture
def runner(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A worker's runner, on the loop of this process; without limits and holds, since there is no Redis."""
    monkeypatch.setenv("SUREFOOT_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("SUREFOOT_REDIS_URL", "amqp://nobody.there")
    monkeypatch.setenv("SUREFOOT_RENEW_SECONDS", str(RENEW_SECONDS))
    return assemble(WorkerSettings.from_env(), load(ACTION_MODULES), Celery("tests", set_as_current=False)).runner


def test_claimed_jobs_are_renewed_while_the_loop_is_kept_from_beginning_their_attempts(
    engine: Engine, runner: Runner, lone_producer: Producer, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    jobs = lone_producer.enqueue_many(gate.requests(range(100)))
    ids = [job.id for job in jobs]
    gate.open()

    async def go() -> None:
        ring = asyncio.create_task(runner.run("pool.wait", ids))
        for _ in range(2):  # it asks for the jobs; what this turn of the loop asked for is handed to the writer
            await asyncio.sleep(0)
        until(lambda: len(lease_ends(engine)) == len(ids))  # as an action that keeps the loop to itself
        until(are_renewed(engine, *ids))
        await ring

    asyncio.run_coroutine_threadsafe(go(), process_loop()).result(SECONDS)
    assert {job.refresh().state for job in jobs} == {State.SUCCEEDED}
    assert runner.leases.count == 0


def test_a_job_that_was_not_claimed_leaves_no_lease_behind(runner: Runner, lone_producer: Producer) -> None:
    job = lone_producer.enqueue("pool.remember", {"mark": "m"}, idempotency_key="k")
    for _ in range(2):
        asyncio.run_coroutine_threadsafe(runner.run("pool.remember", [job.id]), process_loop()).result(SECONDS)
    assert job.refresh().state is State.SUCCEEDED
    assert runner.leases.count == 0

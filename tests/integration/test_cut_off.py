"""An attempt that is cut off between its steps, as by a worker that stops: the job is given back, unspent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery
from sqlalchemy import Engine, text
from sqlalchemy.engine import Connection

from producer import Producer, Settings, State
from producer.job import Job
from tasks import load
from tests.gates import Gate, whys
from tests.houses import ACTION_MODULES, until
from worker.attempt import Settlement
from worker.doubt import Ended
from worker.loop import CutOff, cut_off, process_loop
from worker.parts import assemble
from worker.runner import Runner
from worker.settings import WorkerSettings

SECONDS = 20.0
# Whatever is about to be performed waits for a lock, as it would for a slow disk.
HOLD_INTENTS = """
SELECT pg_advisory_lock(1);
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END';
CREATE TRIGGER hold BEFORE UPDATE ON jobs FOR EACH ROW WHEN (NEW.state = 'running') EXECUTE FUNCTION hold();
"""
SOMEBODY_WAITS = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@pytest.fixture
def runner(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A worker's runner, on the loop of this process. What it gives back is for others to ring: it needs no Redis."""
    monkeypatch.setenv("SUREFOOT_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("SUREFOOT_REDIS_URL", "amqp://nobody.there")
    return assemble(WorkerSettings.from_env(), load(ACTION_MODULES), Celery("tests", set_as_current=False)).runner


@pytest.fixture(params=["pure", "unsafe"])
def job(request: pytest.FixtureRequest, lone_producer: Producer, tmp_path: Path) -> Job:
    return lone_producer.enqueue(**Gate(tmp_path).request(0, effect=request.param))


def run_and_stop(runner: Runner, job: Job, *, when: Callable[[], object], then: Callable[[], object]) -> Settlement:
    """Have the job tried, cut the attempt off as a stopping worker does, let the ledger go on, and see how it ended."""

    async def go() -> list[Ended]:
        cut = CutOff()
        cut_off.set(cut)
        trying = asyncio.create_task(runner.run("pool.wait", [job.id]))
        await asyncio.to_thread(until, when)
        cut.reason = "stopping"
        trying.cancel()
        await asyncio.to_thread(then)
        return await trying

    (settlement,) = asyncio.run_coroutine_threadsafe(go(), process_loop()).result(SECONDS)
    assert isinstance(settlement, Settlement)
    return settlement


def somebody_waits(connection: Connection) -> bool:
    return bool(connection.exec_driver_sql(SOMEBODY_WAITS).scalar())


def test_a_job_that_is_being_claimed_is_given_back(engine: Engine, runner: Runner, job: Job, tmp_path: Path) -> None:
    with engine.connect() as looking, engine.connect().execution_options(isolation_level="READ COMMITTED") as other:
        locked = other.begin()
        other.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": job.id})
        settlement = run_and_stop(runner, job, when=lambda: somebody_waits(looking), then=locked.rollback)
    assert (settlement.was, settlement.becomes) == (State.CLAIMED, State.WAITING)
    assert [event.kind for event in job.events] == ["accepted", "claimed", "returned"]
    record = job.refresh().record
    assert (record.state, record.waiting_for, record.attempt) == (State.WAITING, "worker", 0)
    assert Gate(tmp_path).notes() == []


def test_a_job_whose_effect_was_intended_and_not_begun_is_given_back_whatever_its_effect(
    engine: Engine, runner: Runner, job: Job, tmp_path: Path
) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql(HOLD_INTENTS)
        settlement = run_and_stop(
            runner,
            job,
            when=lambda: somebody_waits(connection),
            then=lambda: connection.exec_driver_sql("SELECT pg_advisory_unlock(1)"),
        )
    assert (settlement.was, settlement.becomes) == (State.RUNNING, State.WAITING)
    assert whys(job) == ["returned"]
    record = job.refresh().record
    assert (record.state, record.waiting_for, record.attempt) == (State.WAITING, "worker", 0)
    assert Gate(tmp_path).notes() == []

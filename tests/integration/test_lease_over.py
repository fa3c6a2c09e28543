"""A worker that comes to itself with its intent granted and its lease over: another may have the job by now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import Engine, text

from producer import Producer, Settings, State
from producer.job import Job
from tasks import load
from tests.gates import Gate, whys
from tests.houses import ACTION_MODULES, until
from worker import statements, writer
from worker.loop import process_loop
from worker.parts import assemble
from worker.rescue import rescue
from worker.runner import Runner
from worker.settings import WorkerSettings

SECONDS = 20.0
LAPSED = text("SELECT lease_expires_at < clock_timestamp() FROM jobs WHERE id = :id")


@pytest.fixture
def runner(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A worker's runner whose leases are short and not renewed, as those of a process that is stopped."""
    monkeypatch.setenv("SUREFOOT_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("SUREFOOT_REDIS_URL", "amqp://nobody.there")
    monkeypatch.setenv("SUREFOOT_LEASE_SECONDS", "2")
    monkeypatch.setenv("SUREFOOT_RENEW_SECONDS", "600")
    return assemble(WorkerSettings.from_env(), load(ACTION_MODULES), Celery("tests", set_as_current=False)).runner


@pytest.fixture(params=["pure", "unsafe"])
def job(request: pytest.FixtureRequest, lone_producer: Producer, tmp_path: Path) -> Job:
    gate = Gate(tmp_path)
    gate.open()
    return lone_producer.enqueue(**gate.request(0, effect=request.param))


def intended_before(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object]) -> None:
    """Have `then` happen between the commit of an intent and the moment in which its worker hears of it."""
    intend = statements.intend

    def slow(*args: Any) -> Any:
        granted = intend(*args)
        then()
        return granted

    monkeypatch.setattr(writer, "intend", slow)


def try_once(runner: Runner, job: Job) -> None:
    asyncio.run_coroutine_threadsafe(runner.run("pool.wait", [job.id]), process_loop()).result(SECONDS)


def wait_until_lapsed(engine: Engine, job: Job) -> None:
    with engine.connect() as connection:
        until(lambda: connection.execute(LAPSED, {"id": job.id}).scalar())


def test_an_effect_whose_lease_is_over_before_it_begins_is_left_undone_and_the_job_given_back(
    engine: Engine, runner: Runner, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intended_before(monkeypatch, lambda: wait_until_lapsed(engine, job))
    try_once(runner, job)
    assert Gate(tmp_path).notes() == []
    assert whys(job) == ["returned"]
    record = job.refresh().record
    assert (record.state, record.waiting_for, record.attempt) == (State.WAITING, "worker", 0)


def test_an_effect_is_left_undone_where_the_job_was_taken_over_before_it_began(
    engine: Engine, runner: Runner, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lapse_and_rescue() -> None:
        wait_until_lapsed(engine, job)
        with engine.connect() as connection:
            assert rescue(connection, worker="another", crash_cap=3) == 1

    intended_before(monkeypatch, lapse_and_rescue)
    try_once(runner, job)
    assert Gate(tmp_path).notes() == []
    assert [event.kind for event in job.events][-2:] == ["rescued", "late_result"]


def test_a_job_that_is_lost_hides_nothing_of_those_that_were_rung_with_it(
    runner: Runner, lone_producer: Producer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery is told of a ring what became of its jobs: Flower had a failure for what had gone well."""
    gate = Gate(tmp_path)
    gate.open()
    lost, kept = (lone_producer.enqueue(**gate.request(number)) for number in range(2))
    intend = statements.intend

    def without_one(*args: Any) -> Any:
        return {job_id: granted for job_id, granted in intend(*args).items() if job_id != lost.id}

    monkeypatch.setattr(writer, "intend", without_one)
    ring = runner.run("pool.wait", [lost.id, kept.id])
    ended = asyncio.run_coroutine_threadsafe(ring, process_loop()).result(SECONDS)
    assert [(each.job_id, each.becomes) for each in ended] == [(kept.id, State.SUCCEEDED)]

"""A dependency that fails for everybody: what the whole fleet makes of it, over real servers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from producer import Producer, Settings
from producer.job import Job
from producer.ledger.engine import open_engine
from tests.houses import WorkerProcess, start_worker, until

pytestmark = pytest.mark.timeout(240)

JOBS, WORKERS = 400, 2
SECONDS = 90.0
# How long the outage is watched once every job was tried: for several times as long as any backoff.
WATCHED = timedelta(seconds=3)


@pytest.fixture(scope="module")
def fleet(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[WorkerProcess]]:
    folder = tmp_path_factory.mktemp("fleet")
    workers = [start_worker(module_settings, folder / f"{n}.log", concurrency=50) for n in range(WORKERS)]
    yield workers
    for worker in workers:
        worker.kill()


@pytest.fixture(scope="module")
def asking(module_settings: Settings, fleet: list[WorkerProcess]) -> Iterator[Producer]:  # noqa: ARG001  it has to run
    producer = Producer(module_settings)
    yield producer
    producer.close()


def intents(settings: Settings, action: str) -> list[datetime]:
    """When attempts at this action began, in order."""
    query = text(
        "SELECT e.at FROM events e JOIN jobs j ON j.id = e.job_id"
        " WHERE e.kind = 'intended' AND j.action = :action ORDER BY e.at"
    )
    engine = open_engine(settings.database_url, connections=1, name="tests")
    with engine.connect() as connection:
        moments = list(connection.execute(query, {"action": action}).scalars())
    engine.dispose()
    return moments


def begin(producer: Producer, action: str, well: Path) -> list[Job]:
    """Enqueue jobs that all fail; return them once each was tried."""
    params = {"well": str(well)}
    jobs = producer.enqueue_many(
        [{"action": action, "params": params, "idempotency_key": f"{action}-{n}"} for n in range(JOBS)]
    )
    until(lambda: all(job.refresh().record.attempt for job in jobs), seconds=SECONDS)
    return jobs


def test_in_an_outage_the_whole_fleet_makes_hardly_more_attempts_than_there_are_jobs(
    asking: Producer, module_settings: Settings, tmp_path: Path
) -> None:
    jobs = begin(asking, "outage.budgeted", tmp_path / "well")
    since = intents(module_settings, "outage.budgeted")[-1] + WATCHED
    until(lambda: intents(module_settings, "outage.budgeted")[-1] > since, seconds=SECONDS)
    assert len(intents(module_settings, "outage.budgeted")) / JOBS <= 1.2
    waiting = Counter(job.refresh().record.waiting_for for job in jobs)
    assert waiting["retries"] > JOBS / 2
    one = next(job for job in jobs if job.record.waiting_for == "retries")
    held = next(event for event in one.events if (event.data or {}).get("why") == "retries used up")
    assert (held.kind, (held.data or {})["waiting_on"]) == ("held", "outage with a budget")
    assert one.record.attempt == len([event for event in one.events if event.kind == "intended"])  # held, not spent
    assert {job.cancel() for job in jobs} <= {"cancelled", "requested"}


def test_without_a_budget_there_are_several_attempts_for_each_job(
    asking: Producer, module_settings: Settings, tmp_path: Path
) -> None:
    begin(asking, "outage.unbudgeted", tmp_path / "well")
    until(lambda: len(intents(module_settings, "outage.unbudgeted")) > 2 * JOBS, seconds=SECONDS)


def test_a_retry_whose_answer_cannot_be_used_is_paid_for_as_one_that_failed(asking: Producer) -> None:
    job = asking.enqueue("outage.unusable", idempotency_key="unusable")
    until(lambda: job.refresh().record.waiting_for == "retries" or job.record.is_at_rest)
    assert (job.record.waiting_for, job.record.attempt) == ("retries", 2)
    assert job.cancel() == "cancelled"

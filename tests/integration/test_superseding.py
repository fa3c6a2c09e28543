"""A true result and its own outcome are one transaction: whatever goes wrong, never one without the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from producer import Job, Producer, Request, Settings, State
from producer.errors import IdempotencyConflict
from producer.ledger.engine import open_engine
from producer.ledger.superseding import true_result_key
from producer.sealing import seal_by
from tests.integration.test_settle_with import asked
from tests.integration.writers import WORKER, Hands, enqueued, hands, history, running
from tests.loops import on_a_loop
from worker.attempt import Attempt

DEGRADED: dict[str, Any] = {
    "becomes": State.DEGRADED,
    "kind": "degraded",
    "result": 0,
    "data": {"why": "out of retries"},
}
SUCCEEDED: dict[str, Any] = {"becomes": State.SUCCEEDED, "kind": "succeeded", "result": {"total": 3}}


@pytest.fixture
def worker(settings: Settings) -> Iterator[Hands]:
    made = open_engine(settings.database_url, connections=1, name=WORKER)
    yield hands(made)
    made.dispose()


async def degraded(engine: Engine, producer: Producer, worker: Hands) -> tuple[Job, Attempt]:
    """Have a job degraded, and its true result under way."""
    (job,) = enqueued(producer, 1)
    (attempt,) = running(engine, [job])
    request = Request(action="test.add", params={"a": 1, "b": 2}, idempotency_key=true_result_key(job.id))
    left = seal_by(producer.actions(), request, tenant="default", queue="actions", parent_job_id=job.id)
    assert await worker.settle(attempt, **DEGRADED, follow_ups=(left,)) == "settled"
    return job, running(engine, [producer.job(left.id)])[0]


@on_a_loop
async def test_the_claim_says_whose_place_a_result_is_for(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    job, bringing = await degraded(engine, lone_producer, worker)
    assert bringing.supersedes == job.id


@on_a_loop
async def test_both_jobs_succeed_in_one_transaction(engine: Engine, lone_producer: Producer, worker: Hands) -> None:
    job, bringing = await degraded(engine, lone_producer, worker)
    assert await worker.settle(bringing, **SUCCEEDED, supersedes=job.id) == "settled"
    assert (job.refresh().state, job.result, job.record.degraded_by) == (
        State.SUCCEEDED,
        {"total": 3},
        "out of retries",
    )
    assert history(job)[-2:] == ["degraded", "superseded"]
    finished = lone_producer.job(bringing.job_id).record.finished_at
    assert job.record.finished_at is not None
    assert finished is not None
    assert abs((job.record.finished_at - finished).total_seconds()) < 1


@on_a_loop
async def test_where_the_outcome_is_taken_back_the_fallback_stays(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    job, bringing = await degraded(engine, lone_producer, worker)
    lone_producer.enqueue("test.add", {"a": 5, "b": 5}, idempotency_key="taken")
    conflicting = asked(lone_producer, bringing, "taken")
    with pytest.raises(IdempotencyConflict):
        await worker.settle(bringing, **SUCCEEDED, supersedes=job.id, follow_ups=conflicting)
    assert (job.refresh().state, history(job)[-1]) == (State.DEGRADED, "degraded")
    assert lone_producer.job(bringing.job_id).state is State.RUNNING


@on_a_loop
async def test_a_repeat_of_the_outcome_supersedes_once(engine: Engine, lone_producer: Producer, worker: Hands) -> None:
    job, bringing = await degraded(engine, lone_producer, worker)
    for answer in ("settled", "repeated"):
        assert await worker.settle(bringing, **SUCCEEDED, supersedes=job.id) == answer
    assert history(job).count("superseded") == 1


@on_a_loop
async def test_an_outcome_that_comes_too_late_supersedes_nothing(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    job, bringing = await degraded(engine, lone_producer, worker)
    late = Attempt(**{name: getattr(bringing, name) for name in Attempt.__slots__} | {"fence": bringing.fence - 1})
    assert await worker.settle(late, **SUCCEEDED, supersedes=job.id) == "late"
    assert job.refresh().state is State.DEGRADED

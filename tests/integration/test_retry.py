"""What a person may have tried again, and what the ledger makes of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from producer import JobNotDead, JobNotFound, Producer, State
from producer.acting import via_host
from producer.errors import InvalidRequest
from producer.job import Job
from tests.integration.test_statements import claimed, intent, settlement, writer_of

WHY = "their server is up again"
ERROR = {"type": "Unknown", "message": "no answer", "traceback": ""}


def died(engine: Engine, job: Job, *, doubtful: bool = False) -> Job:
    """Have the job's attempt end it."""
    writer = writer_of(engine)
    attempt = claimed(writer, job)
    writer.intend([intent(attempt)])
    becomes = State.IN_DOUBT if doubtful else State.DEAD
    writer.settle([settlement(attempt, becomes, maybe_happened=doubtful, error=ERROR)])
    return job.refresh()


@pytest.fixture
def dead(engine: Engine, lone_producer: Producer) -> Job:
    """A job that died at its first attempt."""
    return died(engine, lone_producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key="k"))


def test_a_dead_job_is_due_once_more_with_who_said_so_and_why(engine: Engine, dead: Job) -> None:
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET crashes = 2, deadline_at = clock_timestamp() - interval '1 s'"))
    dead.retry(reason=WHY, who="ada")
    record = dead.record
    assert (record.state, record.finished_at, record.deadline_at, record.crashes) == (State.QUEUED, None, None, 0)
    assert (dead.events[-1].kind, dead.events[-1].data) == (
        "retried",
        {"reason": WHY, "who": "ada", "via": via_host("python")},
    )
    assert claimed(writer_of(engine), dead).number == 2  # what was spent stays so


def test_a_job_is_retried_once_however_many_ask_at_the_same_time(dead: Job, lone_producer: Producer) -> None:
    def ask(_: int) -> bool:
        try:
            lone_producer.retry(dead.id, reason=WHY)
        except JobNotDead:
            return False
        return True

    with ThreadPoolExecutor(5) as threads:
        assert sum(threads.map(ask, range(5))) == 1
    assert [event.kind for event in dead.events].count("retried") == 1


def test_a_job_that_is_not_dead_is_left_alone(lone_producer: Producer) -> None:
    job = lone_producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key="k")
    with pytest.raises(JobNotDead, match="is queued; only a dead job can be retried"):
        job.retry(reason=WHY)
    assert [event.kind for event in job.events] == ["accepted"]


def test_a_job_that_was_given_up_in_doubt_is_not_done_again(engine: Engine, lone_producer: Producer) -> None:
    job = died(engine, lone_producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key="k"), doubtful=True)
    job.resolve("abandon", reason="nobody will find out")
    with pytest.raises(JobNotDead, match="was given up in doubt"):
        job.retry(reason=WHY)
    assert job.refresh().state is State.DEAD


def test_a_job_whose_key_was_asked_for_anew_is_left_to_the_newer_one(dead: Job, lone_producer: Producer) -> None:
    newer = lone_producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key="k", on_closed="rerun_if_failed")
    assert newer.id != dead.id
    with pytest.raises(JobNotDead, match="newer job"):
        dead.retry(reason=WHY)


@pytest.mark.parametrize("reason", [pytest.param("", id="empty"), pytest.param("  ", id="blank")])
def test_a_retry_without_a_reason_is_refused(dead: Job, reason: str) -> None:
    with pytest.raises(InvalidRequest, match="reason: is missing"):
        dead.retry(reason=reason)
    assert dead.refresh().state is State.DEAD


def test_no_job_is_not_found(lone_producer: Producer) -> None:
    with pytest.raises(JobNotFound):
        lone_producer.retry(uuid4(), reason=WHY)

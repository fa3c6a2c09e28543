"""What a person may say of a job in doubt, and what the ledger makes of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from producer import JobNotFound, JobNotInDoubt, Producer, State
from producer.acting import via_host
from producer.errors import InvalidRequest
from producer.job import Job
from tests.integration.test_statements import claimed, intent, settlement, writer_of

WHY = "looked it up in their books"


@pytest.fixture
def doubtful(engine: Engine, lone_producer: Producer) -> Job:
    """A job whose second attempt ended in doubt, after a request to cancel it and two crashes."""
    job = lone_producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key="k")
    writer = writer_of(engine)
    attempt = claimed(writer, job)
    writer.intend([intent(attempt, "keyed", 0.0)])
    error = {"type": "Unknown", "message": "no answer", "traceback": ""}
    writer.settle([settlement(attempt, State.IN_DOUBT, maybe_happened=True, error=error)])
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET crashes = 2, cancel_requested_at = clock_timestamp()"))
    assert job.refresh().state is State.IN_DOUBT
    return job


def told(job: Job) -> dict[str, Any]:
    """What the last event says."""
    assert job.events[-1].kind == "resolved"
    return dict(job.events[-1].data or {})


def test_what_happened_is_recorded_as_the_jobs_result_with_who_said_so_and_why(doubtful: Job) -> None:
    doubtful.resolve("happened", result={"total": 3}, reason=WHY, who="ada")
    assert (doubtful.state, doubtful.result, doubtful.error) == (State.SUCCEEDED, {"total": 3}, None)
    assert doubtful.record.finished_at is not None
    assert told(doubtful) == {
        "verdict": "happened",
        "to": "succeeded",
        "reason": WHY,
        "who": "ada",
        "via": via_host("python"),
        "result_sha256": sha256(b'{"total":3}').hexdigest(),
    }
    assert doubtful.get(0) == {"total": 3}


def test_what_did_not_happen_is_due_at_once_as_if_it_had_never_been_tried(engine: Engine, doubtful: Job) -> None:
    doubtful.resolve("retry", reason=WHY)
    record = doubtful.record
    assert (record.state, record.waiting_for, record.finished_at) == (State.WAITING, "retry", None)
    assert told(doubtful)["to"] == "waiting"
    attempt = claimed(writer_of(engine), doubtful)
    assert (attempt.number, attempt.maybe_happened, attempt.cancel_requested) == (2, False, False)
    assert (attempt.repeat_left, attempt.intended_before) == (None, False)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT crashes FROM jobs")).scalar() == 0


def test_what_nobody_finds_out_is_dead_and_keeps_its_error_and_its_doubt(engine: Engine, doubtful: Job) -> None:
    doubtful.resolve("abandon", reason=WHY)
    assert doubtful.state is State.DEAD
    assert doubtful.error is not None
    assert doubtful.error["message"] == "no answer"
    assert doubtful.record.finished_at is not None
    with engine.connect() as connection:
        assert connection.execute(text("SELECT maybe_happened FROM jobs")).scalar() is True


def test_a_late_worker_changes_nothing_that_was_resolved(engine: Engine, lone_producer: Producer) -> None:
    job = lone_producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key="k")
    writer = writer_of(engine)
    attempt = claimed(writer, job)
    writer.intend([intent(attempt, "unsafe")])
    writer.settle([settlement(attempt, State.IN_DOUBT, maybe_happened=True)])
    job.resolve("abandon", reason=WHY)
    assert writer.settle([settlement(attempt, result=7)]) == {job.id: "late"}
    assert job.refresh().state is State.DEAD
    assert job.events[-1].kind == "late_result"


def test_of_many_who_resolve_one_job_one_does(lone_producer: Producer, doubtful: Job) -> None:
    def say(number: int) -> bool:
        try:
            lone_producer.resolve(doubtful.id, "happened", result={"total": number}, reason=WHY)
        except JobNotInDoubt:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(say, range(8))) == 1
    assert [event.kind for event in doubtful.events].count("resolved") == 1


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ({"verdict": "happened", "result": {"total": "three"}}, "result.total"),
        ({"verdict": "happened", "result": None}, "result"),
        ({"verdict": "happened", "result": {"total": float("nan")}}, "result.total"),
        ({"verdict": "happened", "result": {"total": 3}, "reason": "a\x00b"}, "reason"),
        ({"verdict": "retry", "result": {"total": 3}}, "result"),
        ({"verdict": "retry", "reason": " "}, "reason"),
        ({"verdict": "retry", "reason": None}, "reason"),
        ({"verdict": "retry", "who": "a\nb"}, "who"),
        ({"verdict": "perhaps"}, "verdict"),
    ],
)
def test_what_cannot_be_said_is_refused_with_its_place_and_the_doubt_stays(
    doubtful: Job, said: dict[str, Any], where: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        doubtful.resolve(**({"reason": WHY} | said))
    assert caught.value.where == where
    assert doubtful.refresh().state is State.IN_DOUBT
    assert doubtful.events[-1].kind == "in_doubt"


def test_a_job_that_is_not_in_doubt_is_left_alone(lone_producer: Producer) -> None:
    job = lone_producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key="k")
    with pytest.raises(JobNotInDoubt, match="is queued; only a job in doubt can be resolved"):
        job.resolve("abandon", reason=WHY)
    assert [event.kind for event in job.events] == ["accepted"]
    with pytest.raises(JobNotFound):
        lone_producer.resolve(uuid4(), "abandon", reason=WHY)

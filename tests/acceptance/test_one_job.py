"""One job's whole way through a real Celery worker: performed, retried, held, refused, and read back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from producer import JobFailed, State
from producer.ledger.engine import open_engine
from producer.trace import trace_id_of
from tests.houses import House, until

SECONDS = 20.0


def test_a_job_is_performed_and_its_result_read_back(house: House) -> None:
    job = house.producer.enqueue("test.add", {"a": 1, "b": 2}, request_id="one-job")
    assert job.get(SECONDS) == {"total": 3}
    assert [event.kind for event in job.events] == ["accepted", "claimed", "intended", "succeeded"]
    (decision,) = house.producer.chain("one-job")
    assert (decision.result, decision.attempt, decision.effect) == ({"total": 3}, 1, "pure")
    assert decision.latency_ms is not None


@pytest.mark.parametrize("which", ["house", "own_house"], ids=["asyncio", "prefork"])
def test_a_full_collection_spares_what_a_worker_has_loaded(which: str, request: pytest.FixtureRequest) -> None:
    house: House = request.getfixturevalue(which)
    assert house.producer.enqueue("test.spared").get(SECONDS) > 50_000


def test_every_job_of_a_batch_is_performed_once(house: House) -> None:
    jobs = house.producer.enqueue_many(
        [{"action": "test.add", "params": {"a": n, "b": n}, "idempotency_key": f"batch-{n}"} for n in range(50)]
    )
    assert [job.get(SECONDS)["total"] for job in jobs] == [2 * n for n in range(50)]
    assert {job.record.attempt for job in jobs} == {1}


@pytest.mark.parametrize("action", ["test.fail", "test.fail_async"])
def test_an_attempt_that_fails_is_tried_again_with_backoff(house: House, action: str) -> None:
    job = house.producer.enqueue(action, {"times": 2})
    assert job.get(SECONDS) == 3
    failed = [event for event in job.events if event.kind == "attempt_failed"]
    assert [event.attempt for event in failed] == [1, 2]
    for event in failed:
        assert event.data is not None
        assert 0 <= event.data["delay"] <= 0.05 * 2 ** ((event.attempt or 0) - 1)
        assert event.data["error"]["type"] in ("Retry", "ValueError")
    assert job.error is None  # it ended well; what went wrong on the way is in its history


def test_a_job_out_of_retries_is_dead_and_keeps_its_last_error_with_traceback(house: House) -> None:
    job = house.producer.enqueue("test.fail_async", {"times": 9})
    with pytest.raises(JobFailed, match="dead: ValueError: attempt 4 of 9"):
        job.get(SECONDS)
    assert job.record.attempt == 4
    assert job.error is not None
    assert "raise ValueError" in job.error["traceback"]


def test_a_definite_refusal_fails_at_once(house: House) -> None:
    job = house.producer.enqueue("test.raise", {"kind": "refused"}).wait(SECONDS)
    assert (job.state, job.record.attempt) == (State.FAILED, 1)


def test_a_hold_spends_no_attempt_and_holds_the_dependency_for_everyone(house: House, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    job = house.producer.enqueue("test.hold", {"times": 2, "log": str(log)})
    # max_retries is 0: a hold that spent an attempt would end the job.
    assert job.get(SECONDS) == 3
    assert job.record.attempt == 1
    held = [event for event in job.events if event.kind == "held"]
    assert len(held) >= 2
    until(lambda: house.worker.events("dependency.held"))


@pytest.mark.parametrize("kind", ["exit", "interrupt", "cancelled", "recursion", "unknown"])
def test_whatever_an_action_raises_its_job_ends_and_does_not_vanish(house: House, kind: str) -> None:
    job = house.producer.enqueue("test.raise", {"kind": kind}).wait(SECONDS)
    assert job.state in (State.FAILED, State.DEAD)
    assert house.producer.enqueue("test.add", {"a": 0, "b": 0}, idempotency_key=f"after-{kind}").get(SECONDS)


@pytest.mark.parametrize("action", ["test.slow", "test.slow_sync"])
def test_an_attempt_beyond_its_timeout_is_cut_off(house: House, action: str) -> None:
    job = house.producer.enqueue(action, {"seconds": 12.0}).wait(SECONDS)
    assert job.state is State.DEAD
    assert job.error is not None
    assert job.error["type"] == "AttemptTimeout"
    assert float(job.record.latency_ms or 0) < 10_000


def test_a_result_of_the_wrong_type_is_refused_and_tried_again(house: House) -> None:
    job = house.producer.enqueue("test.lie", {}).wait(SECONDS)
    assert (job.state, job.record.attempt, job.result) == (State.DEAD, 2, None)
    assert job.error is not None
    assert "valid integer" in job.error["message"]


def test_a_result_of_the_wrong_type_after_an_unsafe_effect_is_never_run_again(house: House) -> None:
    job = house.producer.enqueue("test.lie_unsafe", {})
    until(lambda: job.refresh().state is State.IN_DOUBT)
    assert job.record.attempt == 1


def test_a_result_that_json_cannot_hold_fails_the_job_in_words(house: House) -> None:
    job = house.producer.enqueue("test.unwritable", {}).wait(SECONDS)
    assert job.state is State.DEAD
    assert job.error is not None
    assert "result: holds NaN or an infinity" in job.error["message"]


def test_an_unsafe_action_with_no_answer_is_in_doubt_and_not_tried_again(house: House) -> None:
    job = house.producer.enqueue("test.unsafe_unknown", {})
    until(lambda: job.refresh().state is State.IN_DOUBT)
    assert [event.kind for event in job.events] == ["accepted", "claimed", "intended", "in_doubt"]


def test_a_job_for_later_runs_when_it_is_due(house: House) -> None:
    run_at = datetime.now(UTC) + timedelta(seconds=1)
    job = house.producer.enqueue("test.add", {"a": 5, "b": 5}, run_at=run_at)
    job.get(SECONDS)
    claimed = next(event for event in job.events if event.kind == "claimed")
    assert claimed.at >= run_at


def test_a_job_in_the_callers_transaction_is_rung_once_that_commits(house: House) -> None:
    engine = open_engine(house.settings.database_url, connections=1, name="tests")
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        with connection.begin():
            job = house.producer.enqueue("test.add", {"a": 7, "b": 7}, connection=connection)
            other = house.producer.enqueue("test.add", {"a": 7, "b": 8})
            other.get(SECONDS)  # the worker is awake, and has seen nothing of the first
        assert job.get(SECONDS) == {"total": 14}
    engine.dispose()


def test_a_job_past_its_deadline_expires(house: House) -> None:
    now = datetime.now(UTC)
    job = house.producer.enqueue(
        "test.add", {"a": 1, "b": 1}, run_at=now + timedelta(seconds=2), deadline=now + timedelta(seconds=2.05)
    )
    engine = open_engine(house.settings.database_url, connections=1, name="tests")
    with engine.connect() as connection:  # as if every worker had been busy until then
        connection.execute(text("UPDATE jobs SET due_at = deadline_at + interval '1 h' WHERE id = :id"), {"id": job.id})
    engine.dispose()
    assert job.wait(SECONDS).state is State.EXPIRED
    assert [event.kind for event in job.events] == ["accepted", "expired"]


@pytest.mark.parametrize("action", ["test.trace", "test.trace_sync"])
def test_the_trace_runs_from_the_caller_through_the_worker_and_out(house: House, action: str) -> None:
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    job = house.producer.enqueue(action, {}, trace=given, request_id="traced")
    seen = job.get(SECONDS)
    trace_id = trace_id_of(given)
    assert seen["trace_id"] == trace_id_of(seen["current"]) == trace_id_of(seen["traceparent"]) == trace_id
    assert (seen["request_id"], seen["job_id"], seen["action"], seen["attempt"]) == ("traced", str(job.id), action, "1")
    assert len({given, seen["current"], seen["traceparent"]}) == 3  # a span of its own at each step


def test_every_line_of_an_attempt_carries_its_ids(house: House) -> None:
    job = house.producer.enqueue("test.trace", {}, idempotency_key="lines")
    job.get(SECONDS)
    lines = house.worker.lines_of(job.id)
    names = {line["event"] for line in lines}
    assert {"test.traced", "attempt.settled"} <= names
    for line in lines:
        assert {"trace_id", "request_id", "action", "attempt"} <= set(line)
        assert line["trace_id"] == trace_id_of(job.record.traceparent)


def test_secrets_are_redacted_in_the_recorded_failure_and_in_the_log(house: House) -> None:
    job = house.producer.enqueue("test.raise", {"kind": "secret"}).wait(SECONDS)
    assert job.error is not None
    assert house.worker.lines_of(job.id)
    everything = json.dumps(job.error) + house.worker.log.read_text()
    assert "hunter2secret" not in everything.replace('"password=hunter2secret and', "")
    assert "abcdef0123456789" not in json.dumps(job.error["message"])


def test_a_cancelled_job_is_not_performed(house: House) -> None:
    later = datetime.now(UTC) + timedelta(seconds=2)
    job = house.producer.enqueue("test.add", {"a": 2, "b": 3}, run_at=later)
    assert job.cancel("changed my mind") == "cancelled"
    house.producer.enqueue("test.add", {"a": 2, "b": 4}, run_at=later).get(SECONDS)
    assert [event.kind for event in job.events] == ["accepted", "cancelled"]

"""What Celery's users find: AsyncResult, events and inspection, answered truly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult

from producer import JobFailed
from tests.houses import House, until

SECONDS = 20.0


@pytest.fixture(scope="module")
def app(house: House) -> Iterator[Celery]:
    """A Celery app as a user of Celery would configure it, reading from the ledger."""
    before = dict(os.environ)
    os.environ |= {"SUREFOOT_DATABASE_URL": house.settings.database_url, "SUREFOOT_REDIS_URL": house.settings.redis_url}
    made = Celery(
        "reader", broker=house.settings.redis_url, backend="worker.backend:LedgerBackend", set_as_current=False
    )
    assert made.backend is not None
    yield made
    made.close()
    os.environ.clear()
    os.environ.update(before)


def result(app: Celery, job_id: object) -> AsyncResult[Any]:
    return AsyncResult(str(job_id), app=app)


def test_a_result_is_read_from_the_ledger(house: House, app: Celery) -> None:
    job = house.producer.enqueue("test.add", {"a": 1, "b": 2})
    answer = result(app, job.id)
    assert answer.get(timeout=SECONDS) == {"total": 3}
    assert (answer.state, answer.successful(), answer.name) == ("SUCCESS", True, "test.add")
    assert answer.date_done is not None


def test_a_failure_is_raised_with_the_ledgers_words_and_traceback(house: House, app: Celery) -> None:
    job = house.producer.enqueue("test.fail_async", {"times": 9})
    answer = result(app, job.id)
    with pytest.raises(JobFailed, match="ValueError: attempt 4 of 9"):
        answer.get(timeout=SECONDS)
    assert (answer.state, answer.failed()) == ("FAILURE", True)
    assert "raise ValueError" in str(answer.traceback)


def test_a_job_in_doubt_is_neither_a_success_nor_a_failure(house: House, app: Celery) -> None:
    job = house.producer.enqueue("test.unsafe_unknown", {})
    answer = result(app, job.id)
    until(lambda: str(answer.state) == "IN_DOUBT")
    assert not answer.ready()


def test_a_cancelled_job_is_revoked(house: House, app: Celery) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    job = house.producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key="for-later", run_at=later)
    assert result(app, job.id).state == "PENDING"
    job.cancel()
    assert str(result(app, job.id).state) == "REVOKED"


def test_what_is_no_job_is_pending_as_celery_has_it(app: Celery) -> None:
    assert result(app, "not-a-uuid").state == "PENDING"


def test_each_action_is_a_task_of_its_name_and_the_worker_answers_inspection(app: Celery) -> None:
    registered = until(lambda: app.control.inspect(timeout=2).registered())
    assert registered is not None
    (names,) = registered.values()
    assert {"email.send", "http.request", "llm.chat", "test.add"} <= set(names)


def test_celerys_events_show_success_retry_and_failure_as_such_and_no_parameters(house: House, app: Celery) -> None:
    seen: list[dict[str, Any]] = []
    canary = "canary-4711"
    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})
        captured = receiver.itercapture(limit=None, timeout=SECONDS, wakeup=True)
        next(captured)
        good = house.producer.enqueue("test.fail", {"times": 1, "message": canary}, idempotency_key="events")
        bad = house.producer.enqueue("test.raise", {"kind": "refused"}, idempotency_key="events")
        for _ in captured:
            kinds = {(event.get("uuid"), event["type"]) for event in seen}
            if {(str(good.id), "task-succeeded"), (str(bad.id), "task-failed")} <= kinds:
                break
    assert (str(good.id), "task-retried") in kinds
    about = [event for event in seen if event.get("uuid") in (str(good.id), str(bad.id))]
    assert {event["name"] for event in about if event["type"] == "task-received"} == {"test.fail", "test.raise"}
    received = [event for event in about if event["type"] in ("task-received", "task-succeeded", "task-sent")]
    assert canary not in str(received)

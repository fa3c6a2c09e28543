"""What Celery's users find: AsyncResult, events and inspection, answered truly."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult, ResultSet
from sqlalchemy import text

from producer import Job, JobFailed, State
from producer.announce import CHANNEL_PREFIX, Announcer
from producer.ledger import reads
from producer.ledger.engine import open_engine
from tests.houses import House, until

SECONDS = 20.0
# Reads in two seconds; to ask as often as its interval says would be 200.
HARDLY = 50


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


def test_a_result_that_is_waited_for_comes_when_its_end_is_announced_and_needs_no_look(
    later: Job, house: House, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "states_of", lambda _c, ids: dict.fromkeys(ids, State.RUNNING))
    announcer = Announcer(house.settings.redis_url)
    with ThreadPoolExecutor(1) as threads, redis.Redis.from_url(house.settings.redis_url) as client:
        waiter = threads.submit(result(app, later.id).get, timeout=SECONDS)
        until(lambda: client.pubsub_numsub(f"{CHANNEL_PREFIX}{later.id}")[0][1])
        move(house, later, State.IN_DOUBT)
        announcer.announce([later.id])
        until(lambda: client.pubsub_numsub(f"{CHANNEL_PREFIX}{later.id}")[0][1])
        assert not waiter.done()
        move(house, later, State.SUCCEEDED)
        until(lambda: waiter.done() or announcer.announce([later.id]))  # type: ignore[func-returns-value]
        assert waiter.result() is None
    announcer.close()


def test_a_result_that_does_not_come_in_time_is_celerys_timeout_and_the_ledger_is_hardly_asked(
    later: Job, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend: Any = app.backend
    calls: list[float] = []
    looked = count_reads(monkeypatch)
    with pytest.raises(CeleryTimeout):
        backend.wait_for(str(later.id), timeout=2, interval=0.01, on_interval=lambda: calls.append(0))
    assert len(calls) > 10
    assert len(looked) < HARDLY
    with pytest.raises(CeleryTimeout):
        result(app, later.id).get(timeout=0)


@pytest.mark.parametrize("task_id", ["00000000-0000-7000-8000-000000000001", "not-a-uuid"])
def test_a_result_of_what_is_no_job_is_waited_for_as_celery_does_and_the_ledger_is_hardly_asked(
    app: Celery, monkeypatch: pytest.MonkeyPatch, task_id: str
) -> None:
    looked = count_reads(monkeypatch)
    with pytest.raises(CeleryTimeout):
        result(app, task_id).get(timeout=2)
    assert len(looked) < HARDLY


def test_an_error_of_what_is_done_meanwhile_ends_the_waiting_for_a_result(later: Job, app: Celery) -> None:
    def stop() -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        result(app, later.id).get(timeout=SECONDS, on_interval=stop)


def test_results_are_collected_as_a_group(house: House, app: Celery) -> None:
    jobs = house.producer.enqueue_many([{"action": "test.add", "params": {"a": 1, "b": n}} for n in range(3)])
    group = ResultSet([result(app, job.id) for job in jobs], app=app)
    assert group.get(timeout=SECONDS) == [{"total": 1}, {"total": 2}, {"total": 3}]


@pytest.fixture
def later(house: House) -> Job:
    """A job that no worker takes up."""
    run_at = datetime.now(UTC) + timedelta(hours=1)
    return house.producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key=str(uuid4()), run_at=run_at)


def move(house: House, job: Job, state: State) -> None:
    engine = open_engine(house.settings.database_url, connections=1, name="tests")
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET state = :state WHERE id = :id"), {"state": state, "id": job.id})
    engine.dispose()


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each statement that asks where jobs stand."""
    found: list[str] = []

    def counting(name: str, read: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            found.append(name)
            return read(*args)

        return counted

    for name in ("states_of", "job_by_id"):
        monkeypatch.setattr(reads, name, counting(name, getattr(reads, name)))
    return found

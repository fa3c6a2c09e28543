"""Accepting against a real Postgres: once per key, durable at return, and nothing half-written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any
from uuid import UUID

import pytest
import redis
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from producer import (
    IdempotencyConflict,
    InvalidRequest,
    JobNotFound,
    JobUnfinished,
    Producer,
    Request,
    RequestRefused,
    Settings,
    State,
    UnknownAction,
)
from producer.acting import user_here, via_host
from producer.envelope import Envelope
from producer.errors import KeyInFlight
from producer.ledger.accept import COLUMNS
from tests.houses import until
from tests.locks import waiting_for_locks

ADD = {"a": 1, "b": 2}


def rows(engine: Engine, table: str = "jobs") -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def test_an_accepted_job_is_in_the_ledger_with_its_decision_and_its_first_event(
    lone_producer: Producer, engine: Engine
) -> None:
    job = lone_producer.enqueue(
        "test.add",
        ADD,
        idempotency_key="k",
        user_id="u",
        request_id="r",
        agent_id="a",
        input={"question": "?"},
        reasoning="because",
    )
    record = job.refresh().record
    assert (job.outcome, record.state, record.params, record.attempt) == ("created", State.QUEUED, ADD, 0)
    assert (record.user_id, record.request_id, record.agent_id) == ("u", "r", "a")
    assert (record.input, record.reasoning) == ({"question": "?"}, "because")
    assert [event.kind for event in job.events] == ["accepted"]
    assert job.id.version == 7
    assert rows(engine) == rows(engine, "decisions") == 1


def test_the_same_request_again_is_answered_with_the_first_job(lone_producer: Producer, engine: Engine) -> None:
    first = lone_producer.enqueue("test.add", ADD, idempotency_key="k")
    again = lone_producer.enqueue("test.add", {"b": 2, "a": 1}, idempotency_key="k")
    assert (again.outcome, again.id) == ("replayed", first.id)
    assert again.record.replays == 1
    assert [event.kind for event in first.events] == ["accepted", "replayed"]
    assert rows(engine) == 1


def test_replays_beyond_the_tenth_are_counted_and_add_nothing_to_the_history(lone_producer: Producer) -> None:
    job = lone_producer.enqueue("test.add", ADD, idempotency_key="k")
    for _ in range(12):
        lone_producer.enqueue("test.add", ADD, idempotency_key="k")
    assert job.refresh().record.replays == 12
    assert len(job.events) == 11


def test_another_request_under_the_same_key_is_a_conflict_that_names_paths_and_no_values(
    lone_producer: Producer, engine: Engine
) -> None:
    first = lone_producer.enqueue("test.fail", {"times": 1, "message": "canary-one"}, idempotency_key="k")
    with pytest.raises(IdempotencyConflict) as caught:
        lone_producer.enqueue("test.fail", {"times": 2, "message": "canary-two"}, idempotency_key="k")
    (conflict,) = caught.value.conflicts
    assert conflict.paths == ("params.message", "params.times")
    assert conflict.job_id == first.id
    assert "canary" not in str(caught.value)
    assert rows(engine) == 1


def test_a_conflict_is_found_before_the_first_job_has_ended_and_whatever_on_closed_says(
    lone_producer: Producer,
) -> None:
    lone_producer.enqueue("test.add", ADD, idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        lone_producer.enqueue("test.add", {"a": 1, "b": 3}, idempotency_key="k", on_closed="rerun")


def test_keys_are_apart_by_action_and_by_tenant(lone_producer: Producer, settings: Settings, engine: Engine) -> None:
    lone_producer.enqueue("test.add", ADD, idempotency_key="k")
    assert lone_producer.enqueue("test.fail", {"times": 0}, idempotency_key="k").outcome == "created"
    other = Producer(Settings(database_url=settings.database_url, redis_url=settings.redis_url, tenant="other"))
    assert other.enqueue("test.add", ADD, idempotency_key="k").outcome == "created"
    other.close()
    assert rows(engine) == 3


def test_another_tenants_job_is_not_there(lone_producer: Producer, settings: Settings) -> None:
    job = lone_producer.enqueue("test.add", ADD, request_id="r")
    other = Producer(Settings(database_url=settings.database_url, redis_url=settings.redis_url, tenant="other"))
    with pytest.raises(JobNotFound):
        other.job(job.id)
    assert other.find("test.add", job.idempotency_key) is None
    assert other.chain("r") == []
    assert other.jobs() == []
    assert other.cancel(job.id) == "too_late"
    other.close()


def test_without_a_key_the_same_wish_on_one_day_is_one_job_and_the_answer_says_so(lone_producer: Producer) -> None:
    first = lone_producer.enqueue("test.add", ADD, user_id="u")
    again = lone_producer.enqueue("test.add", ADD, user_id="u")
    assert (again.outcome, again.id, again.key_derived) == ("replayed", first.id, True)
    assert lone_producer.enqueue("test.add", ADD, user_id="v").outcome == "created"


def test_many_threads_with_one_key_make_one_job(lone_producer: Producer, engine: Engine) -> None:
    barrier = threading.Barrier(8)

    def enqueue(_: int) -> tuple[str | None, UUID]:
        barrier.wait()
        job = lone_producer.enqueue("test.add", ADD, idempotency_key="k")
        return job.outcome, job.id

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(enqueue, range(8)))
    assert sorted(outcome or "" for outcome, _ in answers) == ["created"] + ["replayed"] * 7
    assert len({job_id for _, job_id in answers}) == 1
    assert rows(engine) == 1


def test_a_key_that_another_transaction_is_accepting_is_waited_for_and_then_found(
    lone_producer: Producer, engine: Engine
) -> None:
    # While the first insert is uncommitted, neither arm of the statement sees a row: it has to look once more.
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        transaction = connection.begin()
        first = lone_producer.enqueue("test.add", ADD, idempotency_key="k", connection=connection)
        with ThreadPoolExecutor(1) as threads:
            second = threads.submit(lone_producer.enqueue, "test.add", ADD, idempotency_key="k")
            until(lambda: waiting_for_locks(engine))
            assert not second.done()
            transaction.commit()
            assert (second.result(10).outcome, second.result().id) == ("replayed", first.id)


def test_a_key_whose_other_transaction_does_not_end_is_refused_in_words(
    lone_producer: Producer, engine: Engine
) -> None:
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection, connection.begin():
        lone_producer.enqueue("test.add", ADD, idempotency_key="k", connection=connection)
        with pytest.raises(KeyInFlight, match="ask again"):
            lone_producer.enqueue("test.add", ADD, idempotency_key="k")


def test_two_batches_with_common_keys_in_opposite_order_do_not_deadlock(
    lone_producer: Producer, engine: Engine
) -> None:
    requests = [Request(action="test.add", params=ADD, idempotency_key=f"k{n:03}") for n in range(200)]
    barrier = threading.Barrier(2)

    def enqueue(batch: list[Request]) -> list[str | None]:
        barrier.wait()
        return [job.outcome for job in lone_producer.enqueue_many(batch)]

    for _ in range(3):
        with ThreadPoolExecutor(2) as threads:
            forwards, backwards = threads.map(enqueue, (requests, requests[::-1]))
        assert all(outcome in ("created", "replayed") for outcome in [*forwards, *backwards])
    assert rows(engine) == 200


def test_a_batch_answers_each_request_in_order_and_equal_keys_in_it_are_one_job(
    lone_producer: Producer, engine: Engine
) -> None:
    jobs = lone_producer.enqueue_many(
        [{"action": "test.add", "params": ADD, "idempotency_key": key} for key in ("x", "y", "x")]
    )
    assert [job.outcome for job in jobs] == ["created", "created", "replayed"]
    assert jobs[0].id == jobs[2].id
    assert rows(engine) == 2


def test_a_key_twice_in_a_refused_batch_names_no_job_since_there_is_none(lone_producer: Producer) -> None:
    twice = [
        {"action": "test.add", "params": {"a": 1, "b": b}, "idempotency_key": "twice-in-one-batch"} for b in (1, 2)
    ]
    with pytest.raises(IdempotencyConflict, match="an earlier request of this batch, which differs at ") as caught:
        lone_producer.enqueue_many(twice)
    assert [conflict.job_id for conflict in caught.value.conflicts] == [None]
    assert lone_producer.find("test.add", "twice-in-one-batch") is None


def test_a_conflict_in_a_batch_refuses_the_whole_batch(lone_producer: Producer, engine: Engine) -> None:
    lone_producer.enqueue("test.add", ADD, idempotency_key="taken")
    batch = [
        Request(action="test.add", params=ADD, idempotency_key="new"),
        Request(action="test.add", params={"a": 9, "b": 9}, idempotency_key="taken"),
    ]
    with pytest.raises(IdempotencyConflict) as caught:
        lone_producer.enqueue_many(batch)
    assert [conflict.index for conflict in caught.value.conflicts] == [1]
    assert rows(engine) == 1
    answered = lone_producer.enqueue_many(batch, conflicts="return")
    assert [job.outcome for job in answered] == ["created", "conflict"]
    assert answered[1].conflict_paths == ("params.a", "params.b")


def test_a_bad_request_in_a_batch_refuses_the_whole_batch_and_says_which(
    lone_producer: Producer, engine: Engine
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        lone_producer.enqueue_many([{"action": "test.add", "params": ADD}, {"action": "test.add", "params": {"a": 1}}])
    assert caught.value.index == 1
    assert rows(engine) == 0


def test_every_field_of_an_envelope_is_sent() -> None:
    assert set(COLUMNS) == {field.name for field in fields(Envelope)}


@pytest.mark.parametrize(
    ("requests", "where", "problem"),
    [
        (repeat({"action": "test.add", "params": ADD}), "requests", r"are more than the 10,000 of a batch"),
        (
            repeat({"action": "test.fail", "params": {"times": 1, "message": "x" * 1_000_000}}, 34),
            "requests",
            r"up to this one have 34,000,816 characters; the limit of a batch is 33,554,432; pass them in several",
        ),
    ],
    ids=["an endless one", "more text than Postgres takes"],
)
def test_a_batch_that_is_too_large_is_refused_before_any_of_it_is_sent(
    lone_producer: Producer, engine: Engine, requests: Iterator[dict[str, Any]], where: str, problem: str
) -> None:
    with pytest.raises(InvalidRequest, match=problem) as caught:
        lone_producer.enqueue_many(requests)
    assert caught.value.where == where
    assert rows(engine) == 0


@pytest.mark.parametrize(
    ("request_", "where"),
    [
        ({"action": "test.add", "params": {"a": "1", "b": 2}}, "params.a"),
        ({"action": "test.add", "params": {"a": 1}}, "params"),
        ({"action": "test.add", "params": {**ADD, "c": 3}}, "params.c"),
        ({"action": "test.add", "params": {"a": 1 << 63, "b": 2}}, "params.a"),
        ({"action": "test.fail", "params": {"times": 1, "message": "nul \x00"}}, "params.message"),
        ({"action": "test.fail", "params": {"times": 1, "message": "\ud800"}}, "params.message"),
        ({"action": "test.add", "params": [1, 2]}, "params"),
        ({"action": "test.add", "params": ADD, "idempotency_key": "two words"}, "idempotency_key"),
        ({"action": "test.add", "params": ADD, "idempotency_key": ""}, "idempotency_key"),
        ({"action": "test.add", "params": ADD, "idempotency_key": "k" * 256}, "idempotency_key"),
        ({"action": "test.add", "params": ADD, "request_id": "line\nbreak"}, "request_id"),
        ({"action": "test.add", "params": ADD, "input": {"x": float("nan")}}, "input.x"),
        ({"action": "test.add", "params": ADD, "run_at": datetime(2026, 1, 1)}, "run_at"),  # noqa: DTZ001
        ({"action": "test.add", "params": ADD, "deadline": datetime(2020, 1, 1, tzinfo=UTC)}, "deadline"),
        ({"action": "test.add", "params": ADD, "priority": 10}, "priority"),
        ({"action": "test.add", "params": ADD, "trace": "00-zz"}, "trace"),
        ({"action": "test.add", "params": ADD, "prams": {}}, "prams"),
        ({"params": ADD}, "action"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_accepted_is_refused_with_its_place_and_nothing_is_written(
    lone_producer: Producer, engine: Engine, request_: dict[str, Any], where: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        lone_producer.enqueue_many([request_])
    assert caught.value.where == where
    assert rows(engine) == rows(engine, "decisions") == rows(engine, "events") == 0


def test_an_unknown_action_is_refused_with_what_was_probably_meant(lone_producer: Producer) -> None:
    with pytest.raises(UnknownAction, match=r"'test\.ad' is not an action; did you mean 'test\.add'\?"):
        lone_producer.enqueue("test.ad", ADD)


def test_an_action_of_a_ledger_without_workers_is_refused_with_what_to_do(producer: Producer) -> None:
    with pytest.raises(UnknownAction, match="no worker has published any action"):
        producer.enqueue("test.add", ADD)


def test_a_job_in_the_callers_transaction_is_there_if_and_only_if_it_commits(
    lone_producer: Producer, engine: Engine
) -> None:
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        transaction = connection.begin()
        job = lone_producer.enqueue("test.add", ADD, connection=connection)
        with pytest.raises(JobNotFound, match="commit it first"):
            job.refresh()
        transaction.rollback()
        assert rows(engine) == 0
        with connection.begin():
            job = lone_producer.enqueue("test.add", ADD, connection=connection)
    assert job.refresh().state is State.QUEUED


def test_a_session_serves_as_the_callers_transaction(lone_producer: Producer, engine: Engine) -> None:
    with Session(engine.execution_options(isolation_level="READ COMMITTED")) as session:
        lone_producer.enqueue("test.add", ADD, connection=session)
        assert rows(engine) == 0
        session.commit()
    assert rows(engine) == 1


def test_a_transaction_begun_by_a_statement_is_the_callers_and_autocommit_is_none(
    lone_producer: Producer, engine: Engine
) -> None:
    with engine.connect() as connection:
        with pytest.raises(InvalidRequest, match="is in autocommit"):
            lone_producer.enqueue("test.add", ADD, connection=connection)
        for end, there in (("ROLLBACK", 0), ("COMMIT", 1)):
            connection.exec_driver_sql("BEGIN")
            lone_producer.enqueue("test.add", ADD, connection=connection)
            connection.exec_driver_sql(end)
            assert rows(engine) == there


def test_a_refused_batch_leaves_the_callers_own_work_in_place(lone_producer: Producer, engine: Engine) -> None:
    lone_producer.enqueue("test.add", ADD, idempotency_key="taken")
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection, connection.begin():
        connection.execute(text("CREATE TABLE mine (n int)"))
        with pytest.raises(IdempotencyConflict):
            lone_producer.enqueue("test.add", {"a": 0, "b": 0}, idempotency_key="taken", connection=connection)
        connection.execute(text("INSERT INTO mine VALUES (1)"))
    assert rows(engine, "mine") == 1


def test_a_closed_job_is_rerun_only_if_asked(lone_producer: Producer) -> None:
    def enqueue(on_closed: Any) -> tuple[str | None, UUID]:
        job = lone_producer.enqueue("test.add", ADD, idempotency_key="k", on_closed=on_closed)
        return job.outcome, job.id

    first = lone_producer.enqueue("test.add", ADD, idempotency_key="k")
    assert enqueue("rerun") == ("replayed", first.id)  # still open: there is nothing to run again
    assert first.cancel("changed my mind") == "cancelled"
    assert enqueue("replay") == ("replayed", first.id)
    outcome, second = enqueue("rerun_if_failed")
    assert outcome == "created"
    assert second != first.id
    found = lone_producer.find("test.add", "k")
    assert found is not None
    assert (found.id, found.record.rerun) == (second, 1)


def test_concurrent_reruns_of_a_closed_job_make_one_new_job(lone_producer: Producer, engine: Engine) -> None:
    lone_producer.enqueue("test.add", ADD, idempotency_key="k").cancel()
    barrier = threading.Barrier(6)

    def enqueue(_: int) -> str | None:
        barrier.wait()
        return lone_producer.enqueue("test.add", ADD, idempotency_key="k", on_closed="rerun").outcome

    with ThreadPoolExecutor(6) as threads:
        outcomes = list(threads.map(enqueue, range(6)))
    assert sorted(outcome or "" for outcome in outcomes) == ["created"] + ["replayed"] * 5
    assert rows(engine) == 2


def test_cancelling_ends_a_waiting_job_and_says_when_it_is_too_late(lone_producer: Producer) -> None:
    job = lone_producer.enqueue("test.add", ADD)
    assert job.cancel("no longer needed") == "cancelled"
    assert job.state is State.CANCELLED
    assert job.cancel() == "cancelled"  # asking again is answered alike, in case the first answer got lost
    assert [(event.kind, event.data) for event in job.events][1:] == [
        ("cancelled", {"reason": "no longer needed", "who": user_here(), "via": via_host("python")})
    ]


def test_waiting_gives_up_after_its_time_and_the_job_goes_on(lone_producer: Producer) -> None:
    job = lone_producer.enqueue("test.add", ADD)
    with pytest.raises(JobUnfinished, match="queued after"):
        job.wait(0.05)


@pytest.mark.usefixtures("lone_producer")  # it publishes the actions
def test_accepting_outlives_a_redis_that_is_away(settings: Settings, engine: Engine) -> None:
    away = Producer(Settings(database_url=settings.database_url, redis_url="redis://127.0.0.1:1/0"))
    jobs = [away.enqueue("test.add", ADD, idempotency_key=f"k{n}") for n in range(3)]
    assert [job.outcome for job in jobs] == ["created"] * 3
    away.close()
    assert rows(engine) == 3


def test_closing_one_producer_leaves_another_of_the_same_broker_ringing_and_can_be_undone(
    lone_producer: Producer, settings: Settings
) -> None:
    other = Producer(settings)
    with redis.Redis.from_url(settings.redis_url) as client:

        def rings(producer: Producer, key: str) -> int:
            producer.enqueue("test.add", ADD, idempotency_key=key)
            assert producer.flush()
            return sum(int(client.llen(name)) for name in client.keys("actions*"))

        assert rings(lone_producer, "k1") == 1
        assert rings(other, "k2") == 2
        other.close()
        assert rings(lone_producer, "k3") == 3
        assert rings(other, "k4") == 4
    other.close()


def test_events_cannot_be_changed_or_removed(lone_producer: Producer, engine: Engine) -> None:
    lone_producer.enqueue("test.add", ADD)
    for statement in ("UPDATE events SET kind = 'x'", "DELETE FROM events", "TRUNCATE events"):
        with engine.connect() as connection, pytest.raises(Exception, match="events are only ever added"):
            connection.execute(text(statement))


def test_a_new_action_is_known_as_soon_as_a_worker_publishes_it(
    lone_producer: Producer, publish_more: Callable[[], None]
) -> None:
    with pytest.raises(UnknownAction):
        lone_producer.enqueue("later.action", {})
    publish_more()
    until(lambda: _accepts(lone_producer, "later.action"))


def _accepts(producer: Producer, action: str) -> bool:
    try:
        return producer.enqueue(action, {}).outcome in ("created", "replayed")
    except RequestRefused:
        return False


@pytest.fixture
def publish_more(engine: Engine) -> Callable[[], None]:
    def publish() -> None:
        with engine.connect() as connection:
            connection.execute(
                text(
                    "INSERT INTO actions (name, version, effect, description, params_schema, result_schema, policy)"
                    " VALUES ('later.action', 1, 'pure', '', '{\"type\": \"object\"}', '{}', '{}')"
                )
            )

    return publish


def test_a_job_for_later_is_not_due_before(lone_producer: Producer, engine: Engine) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    job = lone_producer.enqueue("test.add", ADD, run_at=later)
    with engine.connect() as connection:
        row = connection.execute(text("SELECT due_at, ring_at FROM jobs WHERE id = :id"), {"id": job.id}).one()
    assert row.due_at == row.ring_at == later

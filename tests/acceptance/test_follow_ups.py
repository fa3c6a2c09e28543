"""Follow-ups, on real workers: they commit with the outcome of the attempt that asked for them, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from producer import Producer, Settings, State
from producer.job import Job
from producer.ledger.engine import open_engine
from producer.ledger.reads import JobRecord
from producer.trace import trace_id_of
from tests.follow_up_actions import HOSTILE
from tests.gates import whys
from tests.houses import House, start_worker, until
from tests.locks import waiting_for_locks

SECONDS = 30.0


def add(a: int, **more: Any) -> dict[str, Any]:
    return {"action": "test.add", "params": {"a": a, "b": 0}, **more}


def plan(house: House, requests: list[dict[str, Any]], key: str, **params: Any) -> Job:
    asked = {"requests": requests} | params
    return house.producer.enqueue(
        "follow.plan", asked, idempotency_key=key, request_id=key, user_id="ada", agent_id="planner"
    )


def follow_ups(producer: Producer, parent: Job) -> list[JobRecord]:
    """What is in the ledger by now, in the order in which it was asked for."""
    return [record for record in producer.chain(parent.record.request_id) if record.parent_job_id == parent.id]


def test_follow_ups_are_accepted_with_the_outcome_and_belong_to_its_request_and_trace(house: House) -> None:
    parent = plan(house, [add(1), add(2, idempotency_key="own", user_id="bob", reasoning="why not")], "one")
    assert parent.get(SECONDS) == 1
    first, second = follow_ups(house.producer, parent)
    assert [first.idempotency_key, second.idempotency_key] == [f"{parent.id}:0", "own"]
    assert [(each.user_id, each.agent_id) for each in (first, second)] == [("ada", "planner"), ("bob", "planner")]
    assert {trace_id_of(each.traceparent) for each in (first, second)} == {trace_id_of(parent.record.traceparent)}
    assert second.reasoning == "why not"
    assert [house.producer.job(each.id).get(SECONDS) for each in (first, second)] == [{"total": 1}, {"total": 2}]
    succeeded = parent.events[-1]
    assert (succeeded.kind, (succeeded.data or {})["follow_ups"]) == ("succeeded", 2)


def test_an_action_in_a_thread_asks_for_follow_ups_too(house: House) -> None:
    parent = house.producer.enqueue("follow.plan_sync", {"requests": [add(1)]}, request_id="sync")
    assert parent.get(SECONDS) == 1
    assert len(follow_ups(house.producer, parent)) == 1


def test_a_follow_up_is_rung_by_the_worker_that_accepted_it(house: House) -> None:
    before = len(house.worker.events("relay.rang"))
    jobs = [plan(house, [add(n)], f"rung-{n}") for n in range(20)]
    for parent in jobs:
        parent.get(SECONDS)
        (child,) = follow_ups(house.producer, parent)
        house.producer.job(child.id).get(SECONDS)
    assert len(house.worker.events("relay.rang")) == before


def test_a_hundred_follow_ups_of_one_attempt_are_all_performed(house: House) -> None:
    parent = plan(house, [add(n) for n in range(100)], "fan-out")
    parent.get(SECONDS)
    children = follow_ups(house.producer, parent)
    assert sorted(house.producer.job(child.id).get(SECONDS)["total"] for child in children) == list(range(100))


def test_follow_ups_of_follow_ups_are_one_chain(house: House) -> None:
    house.producer.enqueue("follow.countdown", {"left": 5}, request_id="countdown")
    until(lambda: len(house.producer.chain("countdown")) == 6)
    records = house.producer.chain("countdown")
    assert [record.params["left"] for record in records] == [5, 4, 3, 2, 1, 0]
    assert [record.parent_job_id for record in records] == [None, *(record.id for record in records[:-1])]


def test_what_a_failed_attempt_asked_for_is_dropped_and_a_retry_doubles_nothing(house: House) -> None:
    parent = plan(house, [add(1), add(2)], "retried", fail=2)
    assert parent.get(SECONDS) == 3
    assert [record.params["a"] for record in follow_ups(house.producer, parent)] == [1, 2]


def test_a_job_that_never_succeeds_has_no_follow_ups(house: House) -> None:
    parent = plan(house, [add(1)], "never", fail=100).wait(SECONDS)
    assert parent.state is State.DEAD
    assert follow_ups(house.producer, parent) == []


REFUSED = {
    "unknown": ("UnknownAction", "'test.ad' is not an action; did you mean 'test.add'?"),
    "no name": ("InvalidRequest", "action: must be text, not NoneType"),
    "params": ("InvalidRequest", "params.a: must be integer, not string (action test.add)"),
    "no json": ("InvalidRequest", "params.a: is of type object, which is not JSON; pass text, a number, true, false"),
    "key": ("InvalidRequest", "idempotency_key: 'with spaces' must be 1 to 255 visible ASCII characters"),
    "surrogate": ("InvalidRequest", "reasoning: holds half of a surrogate pair, which is not text"),
    "nul": ("InvalidRequest", "input: holds the character U+0000, which Postgres cannot store"),
    "large": ("InvalidRequest", "params: is larger than 1,048,576 bytes; store it elsewhere and pass a reference"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_where_one_follow_up_is_refused_none_is_accepted_and_the_job_fails_for_that_reason(
    house: House, kind: str
) -> None:
    error_type, words = REFUSED[kind]
    parent = house.producer.enqueue("follow.hostile", {"kind": kind}, request_id=f"hostile-{kind}").wait(SECONDS)
    assert parent.error is not None
    assert (parent.state, parent.error["type"]) == (State.FAILED, error_type)
    place = "" if kind == "unknown" else "follow_ups[1]."
    assert parent.error["message"].startswith(place + words)
    assert whys(parent) == ["follow-ups refused"]
    assert parent.result is None
    assert follow_ups(house.producer, parent) == []


def test_more_follow_ups_than_fit_into_one_transaction_are_refused_where_they_are_asked_for(house: House) -> None:
    parent = house.producer.enqueue("follow.too_many", request_id="too-many").wait(SECONDS)
    assert parent.error is not None
    assert parent.error["message"].startswith("follow-ups: are more than 1,000; have one of them ask for the rest")
    assert follow_ups(house.producer, parent) == []


def test_a_follow_up_whose_key_stands_for_another_request_is_refused_with_its_siblings(house: House) -> None:
    standing = house.producer.enqueue("test.add", {"a": 1, "b": 1}, idempotency_key="standing")
    parent = plan(house, [add(7), add(8, idempotency_key="standing")], "conflict").wait(SECONDS)
    assert parent.error is not None
    assert (parent.state, parent.error["type"]) == (State.FAILED, "IdempotencyConflict")
    assert f"stands for job {standing.id}, which differs at params.a, params.b" in parent.error["message"]
    assert follow_ups(house.producer, parent) == []


def test_a_follow_up_that_was_asked_for_before_is_the_job_that_stands(house: House) -> None:
    standing = house.producer.enqueue("test.add", {"a": 1, "b": 0}, idempotency_key="before")
    parent = plan(house, [add(1, idempotency_key="before")], "replayed")
    assert parent.get(SECONDS) == 1
    assert follow_ups(house.producer, parent) == []
    assert standing.refresh().record.parent_job_id is None


@pytest.mark.parametrize("effect", ["idempotent", "keyed", "verifiable", "unsafe"])
def test_where_the_action_had_an_effect_refused_follow_ups_leave_its_job_in_doubt(house: House, effect: str) -> None:
    parent = plan(house, [{"action": "test.no_such"}], f"doubt-{effect}", effect=effect).wait(SECONDS)
    assert (parent.state, whys(parent)) == (State.IN_DOUBT, ["follow-ups refused"])
    assert parent.record.attempt == 1
    # A look would say that it happened, which was never in doubt, and end the job without them.
    house.producer.enqueue("test.add", {"a": 1, "b": 1}, idempotency_key=f"beside-{effect}").get(SECONDS)
    assert parent.refresh().state is State.IN_DOUBT
    assert "verified" not in [event.kind for event in parent.events]


def test_a_worker_killed_before_the_outcome_leaves_the_follow_ups_of_the_attempt_that_lived(
    own_house: House, tmp_path: Path
) -> None:
    parent = own_house.producer.enqueue("follow.die", {"mark": str(tmp_path / "mark")})
    assert parent.get(SECONDS) == 2
    (child,) = follow_ups(own_house.producer, parent)
    assert child.params["a"] == 2
    assert own_house.producer.job(child.id).get(SECONDS) == {"total": 2}


def test_a_worker_killed_in_the_midst_of_the_transaction_leaves_neither_outcome_nor_follow_ups_nor_messages(
    settings: Settings, lone_producer: Producer, tmp_path: Path
) -> None:
    worker = start_worker(settings, tmp_path / "first.log")
    engine = open_engine(settings.database_url, connections=2, name="tests")
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as somebody:
        # Somebody accepts the key of the second follow-up and does not end: the worker has written the outcome, what
        # was said and the first one, and waits in its transaction, again and again.
        transaction = somebody.begin()
        lone_producer.enqueue("test.add", {"a": 9, "b": 9}, idempotency_key="z", connection=somebody)
        requests = [add(1, idempotency_key="y"), add(2, idempotency_key="z")]
        parent = lone_producer.enqueue("follow.say", {"requests": requests, "talk": "t"}, request_id="midst")
        until(lambda: waiting_for_locks(engine))
        worker.kill()
        transaction.rollback()
    assert parent.refresh().state is State.RUNNING
    assert follow_ups(lone_producer, parent) == []
    assert lone_producer.conversation("t").messages == ()
    second = start_worker(settings, tmp_path / "second.log")
    try:
        assert parent.get(SECONDS) == 2
        assert [record.idempotency_key for record in follow_ups(lone_producer, parent)] == ["y", "z"]
        assert [message.content for message in lone_producer.conversation("t").messages] == ["attempt 2"]
    finally:
        second.stop()
        engine.dispose()

"""A request that is sent again, because its answer was lost: it finds its own job, whatever its key stands for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import Engine, text
from uuid_utils.compat import uuid7

from producer import IdempotencyConflict, InvalidRequest, Producer
from producer.envelope import Envelope, Request, seal
from producer.job import Job
from producer.ledger.accept import Answer, accept
from producer.ledger.states import State
from tests.houses import until
from tests.locks import waiting_for_locks


def rerun() -> Envelope:
    request = Request(action="test.add", params={"a": 1, "b": 2}, idempotency_key="k", on_closed="rerun")
    return seal(request, tenant="default", version=1, queue="actions", now=datetime.now(UTC), new_id=uuid7)


def asked(engine: Engine, *envelopes: Envelope) -> list[Answer]:
    with engine.connect() as connection:
        return accept(connection, envelopes, rings=True, prepared=True)


def end_all(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET state = 'failed'"))


@pytest.mark.parametrize("later_ended", [False, True])
def test_a_request_sent_again_finds_its_own_job_and_not_a_later_one_under_its_key(
    engine: Engine, *, later_ended: bool
) -> None:
    first, later = rerun(), rerun()
    for envelope in (first, later):
        (answer,) = asked(engine, envelope)
        assert (answer.outcome, answer.job_id) == ("created", envelope.id)
        if envelope is first or later_ended:
            end_all(engine)
    (answer,) = asked(engine, first)
    assert (answer.outcome, answer.job_id, answer.state) == ("created", first.id, State.FAILED)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar() == 2


# A deadline says until when an action is wanted, and not until when one may ask what became of it.

PASSED = text("SELECT :deadline < clock_timestamp()")
COUNT = text("SELECT count(*) FROM jobs")
ADD = {"a": 1, "b": 2}


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=2)


def until_passed(engine: Engine, deadline: datetime) -> None:
    with engine.connect() as connection:
        until(lambda: connection.execute(PASSED, {"deadline": deadline}).scalar())


Ask = Callable[[Producer, Engine, Request], Job]


def alone(producer: Producer, _engine: Engine, request: Request) -> Job:
    return producer.enqueue_many([request])[0]


def with_others(producer: Producer, _engine: Engine, request: Request) -> Job:
    return producer.enqueue_many([Request(action="test.add", params=ADD, idempotency_key="other"), request])[1]


def one_by_one(producer: Producer, _engine: Engine, request: Request) -> Job:
    other = Request(action="test.add", params=ADD, idempotency_key="other")
    return producer.enqueue_many([other, request], conflicts="return")[1]


def in_a_transaction_of_ones_own(producer: Producer, engine: Engine, request: Request) -> Job:
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as own, own.begin():
        return producer.enqueue_many([request], connection=own)[0]


WAYS = [alone, with_others, one_by_one, in_a_transaction_of_ones_own]


@pytest.mark.parametrize("ask", WAYS)
def test_a_request_sent_again_after_its_deadline_finds_its_job_which_was_accepted_in_time(
    lone_producer: Producer, engine: Engine, ask: Ask
) -> None:
    request = Request(action="test.add", params=ADD, idempotency_key="k", deadline=soon())
    first = ask(lone_producer, engine, request)
    assert request.deadline is not None
    until_passed(engine, request.deadline)
    again = ask(lone_producer, engine, request)
    assert (first.outcome, again.outcome, again.id) == ("created", "replayed", first.id)


@pytest.mark.parametrize("ask", WAYS)
def test_a_request_whose_deadline_is_over_is_refused_and_nothing_is_written(
    lone_producer: Producer, engine: Engine, ask: Ask
) -> None:
    late = Request(action="test.add", params=ADD, idempotency_key="k", deadline=datetime.now(UTC))
    with pytest.raises(InvalidRequest, match=r"deadline: .* leaves no time to perform the action") as raised:
        ask(lone_producer, engine, late)
    assert raised.value.index == (1 if ask in (with_others, one_by_one) else 0)
    with engine.connect() as connection:
        assert connection.execute(COUNT).scalar() == 0


def test_after_the_deadline_another_request_under_the_key_is_a_conflict_as_before(
    lone_producer: Producer, engine: Engine
) -> None:
    deadline = soon()
    lone_producer.enqueue("test.add", ADD, idempotency_key="k", deadline=deadline)
    until_passed(engine, deadline)
    with pytest.raises(IdempotencyConflict):
        lone_producer.enqueue("test.add", {"a": 1, "b": 3}, idempotency_key="k", deadline=deadline)


def test_a_request_that_waits_until_its_deadline_is_over_is_refused_and_not_accepted_after_all(
    lone_producer: Producer, engine: Engine
) -> None:
    deadline = soon()
    ask = partial(lone_producer.enqueue, "test.add", ADD, idempotency_key="k", deadline=deadline)
    with ThreadPoolExecutor(1) as others, engine.connect() as looking:
        with engine.connect().execution_options(isolation_level="READ COMMITTED") as own, own.begin() as begun:
            ask(connection=own)
            waiting = others.submit(ask)
            until(lambda: waiting_for_locks(engine))
            until_passed(engine, deadline)
            begun.rollback()
        with pytest.raises(InvalidRequest, match="leaves no time"):
            waiting.result()
        assert looking.execute(COUNT).scalar() == 0


def test_a_request_sent_again_after_its_deadline_waits_for_its_first_which_is_not_committed_yet(
    lone_producer: Producer, engine: Engine
) -> None:
    deadline = soon()
    ask = partial(lone_producer.enqueue, "test.add", ADD, idempotency_key="k", deadline=deadline)
    with ThreadPoolExecutor(1) as others:
        with engine.connect().execution_options(isolation_level="READ COMMITTED") as own, own.begin():
            first = ask(connection=own)
            until_passed(engine, deadline)
            again = others.submit(ask)
            until(lambda: waiting_for_locks(engine))
        assert (again.result().outcome, again.result().id) == ("replayed", first.id)

"""A held turn whose time to look has come: it waits on where another is first, and nobody's ring gets lost for it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from producer import Producer, State
from producer.job import Job
from producer.ledger.conversations import LOOK_SECONDS, put_off_turns
from producer.ledger.engine import transaction_on
from tests.houses import until
from tests.integration.test_turns import claimed, hold, rung, settle, take, turn
from tests.locks import waiting_for_locks
from worker.attempt import Attempt


@pytest.fixture
def turns(lone_producer: Producer) -> list[Job]:
    return [turn(lone_producer, number) for number in range(3)]


@pytest.fixture
def first(engine: Engine, turns: list[Job]) -> Attempt:
    """Has the turn; the others are held, and their time to look has come."""
    first, *others = claimed(engine, *turns)
    take(engine, first)
    for other in others:
        hold(engine, other)
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET ring_at = now(), due_at = now() WHERE state = 'waiting'"))
    return first


def seen(engine: Engine, *jobs: Job) -> list[tuple[UUID, datetime]]:
    """The jobs as a relay finds them."""
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT id, ring_at FROM jobs WHERE id = ANY(:ids) ORDER BY id"), {"ids": [job.id for job in jobs]}
        )
        return [(row.id, row.ring_at) for row in found]


def put_off(engine: Engine, held: list[tuple[UUID, datetime]]) -> set[UUID]:
    with engine.connect() as connection:
        return put_off_turns(connection, held)


def test_where_another_turn_is_first_still_the_relays_look_later(
    engine: Engine, turns: list[Job], first: Attempt
) -> None:
    _, *held = turns
    before = seen(engine, *held)
    assert put_off(engine, before) == {job.id for job in held}
    for (job_id, then), (_, now) in zip(before, seen(engine, *held), strict=True):
        assert now - then >= timedelta(seconds=LOOK_SECONDS), job_id
    assert {job.refresh().record.fence for job in held} == {1}
    with engine.connect() as connection:  # nobody has promised to ring it: the relay will when it is time
        assert connection.execute(text("SELECT bool_and(ring_at <= due_at) FROM jobs WHERE state = 'waiting'")).scalar()
    assert settle(engine, first) == "settled"
    ring = rung(engine)
    assert ring is not None
    assert ring.job_id == held[0].id


def test_one_whose_turn_it_is_by_now_is_not_put_off(engine: Engine, turns: list[Job], first: Attempt) -> None:
    _, *held = turns
    assert settle(engine, first) == "settled"  # and its worker dies before it rings
    assert put_off(engine, seen(engine, *held)) == {held[1].id}


@pytest.mark.usefixtures("first")
def test_one_that_was_rung_for_since_it_was_seen_is_not_put_off(engine: Engine, turns: list[Job]) -> None:
    before = seen(engine, turns[1])
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET ring_at = clock_timestamp() WHERE id = :id"), {"id": turns[1].id})
    assert put_off(engine, before) == set()


def test_whoever_ends_a_turn_waits_for_a_relay_that_puts_the_next_off(
    engine: Engine, turns: list[Job], first: Attempt
) -> None:
    putting_off, done = threading.Event(), threading.Event()

    def relay() -> set[UUID]:
        with engine.connect() as connection, transaction_on(connection):
            found = put_off_turns(connection, before)
            putting_off.set()
            assert done.wait(20)
            return found

    before = seen(engine, turns[1])
    with ThreadPoolExecutor(2) as threads:
        looking = threads.submit(relay)
        assert putting_off.wait(20)
        assert settle(engine, first) == "settled"
        ringing = threads.submit(rung, engine)
        until(lambda: waiting_for_locks(engine))
        done.set()
        assert looking.result() == {turns[1].id}
        ring = ringing.result()
    assert ring is not None
    assert ring.job_id == turns[1].id
    assert turns[1].refresh().state is State.WAITING

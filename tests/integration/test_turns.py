"""Whose turn it is: the first accepted of those that can come, until its job is closed, and nobody's beside it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from producer import IdempotencyConflict, Producer, Request, State
from producer.conversation import Message
from producer.errors import RequestRefused
from producer.job import Job
from producer.ledger.conversations import conversation, messages_of, wake_turns
from producer.ledger.engine import transaction_on
from producer.ring import Ring
from producer.sealing import seal_by
from tests.houses import until
from tests.integration.test_statements import expire_leases, intent, settlement, take_over, writer_of
from tests.locks import waiting_for_locks
from worker.attempt import Attempt, Settlement
from worker.relay import EXPIRE
from worker.settle_with import settle_with
from worker.turns import LOCK_CONVERSATIONS, TAKE_TURNS, Behind, Turn, TurnWanted, next_turns, take_turns

WORKER = "w1"
TALK = ("default", "talk")


def turn(producer: Producer, number: int, **more: Any) -> Job:
    """A job that is a turn; each has another key."""
    params = {"conversation_id": "talk", "text": str(number)}
    return producer.enqueue("talk.say", params, idempotency_key=f"k{number}", **more)


@pytest.fixture
def turns(lone_producer: Producer) -> list[Job]:
    return [turn(lone_producer, number) for number in range(3)]


def claimed(engine: Engine, *jobs: Job) -> list[Attempt]:
    attempts = writer_of(engine, WORKER).claim("talk.say", 1, [job.id for job in jobs])
    assert len(attempts) == len(jobs)
    return sorted(attempts, key=lambda attempt: attempt.job_id)


def take(engine: Engine, *attempts: Attempt) -> dict[UUID, Turn | Behind]:
    wanted = [TurnWanted(attempt.lease, attempt.tenant, "talk") for attempt in attempts]
    with engine.connect() as connection:
        return take_turns(connection, WORKER, wanted)


def settle(engine: Engine, attempt: Attempt, becomes: State = State.SUCCEEDED, **fields: Any) -> object:
    """End an attempt that was intended."""
    writer_of(engine, WORKER).intend([intent(attempt)])
    return written(engine, settlement(attempt, becomes, conversation=TALK, **fields))


def hold(engine: Engine, attempt: Attempt, *, delay: float = 60.0) -> object:
    held = {"was": State.CLAIMED, "kind": "held", "waiting_for": "conversation", "delay": delay}
    return written(engine, settlement(attempt, State.WAITING, conversation=TALK, **held))


def written(engine: Engine, outcome: Settlement) -> object:
    with engine.connect() as connection:
        return settle_with(connection, WORKER, [outcome], on_accepted=lambda _: None)[outcome.job_id]


def rung(engine: Engine) -> Ring | None:
    with engine.connect() as connection:
        return next_turns(connection, [TALK]).get(TALK)


def said(*contents: str) -> tuple[Message, ...]:
    return tuple(Message(role="user", content=content) for content in contents)


def contents(engine: Engine) -> list[tuple[int | None, str]]:
    with engine.connect() as connection:
        found = messages_of(connection, *TALK, limit=100, size=1 << 20)
    return [(message.seq, message.content) for message in found]


def test_the_first_accepted_has_the_turn_and_the_others_are_behind_it(engine: Engine, turns: list[Job]) -> None:
    attempts = claimed(engine, *turns)
    first, *others = turns
    assert take(engine, *attempts) == {first.id: Turn(()), **{job.id: Behind(first.id) for job in others}}


def test_a_turn_may_be_asked_for_again_and_is_still_had(engine: Engine, turns: list[Job]) -> None:
    (attempt,) = claimed(engine, turns[0])
    assert take(engine, attempt) == take(engine, attempt) == {turns[0].id: Turn(())}


def test_one_that_was_accepted_first_is_waited_for_before_anybody_has_claimed_it(
    engine: Engine, turns: list[Job]
) -> None:
    (second,) = claimed(engine, turns[1])
    assert take(engine, second) == {turns[1].id: Behind(turns[0].id)}


def test_one_that_shall_run_later_holds_up_nobody_and_waits_for_one_that_has_begun(
    engine: Engine, lone_producer: Producer
) -> None:
    later = turn(lone_producer, 1, run_at=datetime.now(UTC) + timedelta(hours=1))
    now, after = turn(lone_producer, 2), turn(lone_producer, 3)
    (begun,) = claimed(engine, now)
    assert take(engine, begun) == {now.id: Turn(())}
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET due_at = clock_timestamp() WHERE id = :id"), {"id": later.id})
    late, behind = claimed(engine, later, after)
    assert take(engine, late, behind) == {later.id: Behind(now.id), after.id: Behind(now.id)}
    assert settle(engine, begun) == "settled"
    assert take(engine, late, behind) == {later.id: Turn(()), after.id: Behind(later.id)}


def test_a_worker_that_lost_the_job_gets_no_turn_for_it(engine: Engine, turns: list[Job]) -> None:
    (lost,) = claimed(engine, turns[0])
    expire_leases(engine)
    assert take_over(engine) == 1
    assert take(engine, lost) == {}
    assert rung(engine) is None


def test_a_turn_is_kept_through_its_worker_s_death(engine: Engine, turns: list[Job]) -> None:
    first, second = claimed(engine, *turns[:2])
    assert take(engine, first)[first.job_id] == Turn(())
    hold(engine, second)
    expire_leases(engine)
    assert take_over(engine) == 1
    (again,) = claimed(engine, turns[1])
    assert take(engine, again) == {turns[1].id: Behind(turns[0].id)}
    hold(engine, again)
    (revived,) = claimed(engine, turns[0])
    assert take(engine, revived) == {turns[0].id: Turn(())}


@pytest.mark.parametrize("becomes", [State.SUCCEEDED, State.FAILED, State.DEAD])
def test_a_turn_is_free_once_its_job_is_closed(engine: Engine, turns: list[Job], becomes: State) -> None:
    first, second = claimed(engine, *turns[:2])
    take(engine, first)
    hold(engine, second)
    assert rung(engine) is None
    assert settle(engine, first, becomes) == "settled"
    ring = rung(engine)
    assert ring is not None
    assert (ring.job_id, ring.action, ring.together) == (turns[1].id, "talk.say", 100)
    record = turns[1].refresh().record
    with engine.connect() as connection:  # the ring may get lost: the relay is to look long before it is due by itself
        ring_at = connection.execute(text("SELECT ring_at FROM jobs WHERE id = :id"), {"id": ring.job_id}).scalar()
    assert ring_at is not None
    assert (record.due_at - ring_at).total_seconds() > 30
    (again,) = claimed(engine, turns[1])  # although it is not due by itself
    assert take(engine, again) == {turns[1].id: Turn(())}


@pytest.mark.parametrize("becomes", [State.WAITING, State.IN_DOUBT])
def test_a_turn_is_kept_while_its_job_is_open(engine: Engine, turns: list[Job], becomes: State) -> None:
    first, second = claimed(engine, *turns[:2])
    take(engine, first)
    more: dict[str, Any] = {"waiting_for": "retry", "delay": 60.0} if becomes is State.WAITING else {}
    assert settle(engine, first, becomes, **more) == "settled"
    assert take(engine, second) == {turns[1].id: Behind(turns[0].id)}
    hold(engine, second)
    assert rung(engine) is None


def test_one_that_is_held_just_after_the_one_before_it_ended_is_found(engine: Engine, turns: list[Job]) -> None:
    first, second = claimed(engine, *turns[:2])
    take(engine, first)
    assert take(engine, second) == {turns[1].id: Behind(turns[0].id)}
    settle(engine, first)
    assert rung(engine) is None  # it is still claimed, so whoever ended the turn finds nobody waiting
    hold(engine, second)
    ring = rung(engine)  # whoever held it looks, too
    assert ring is not None
    assert ring.job_id == turns[1].id


def test_one_that_wants_the_turn_in_the_moment_in_which_another_takes_it_is_behind_it(
    engine: Engine, lone_producer: Producer
) -> None:
    # Accepted first, but due only while the other takes the turn: each is first in line as it sees the ledger.
    first = turn(lone_producer, 1, run_at=datetime.now(UTC) + timedelta(hours=1))
    (taking,) = claimed(engine, turn(lone_producer, 2))
    asked = {"ids": [taking.job_id], "fences": [taking.fence]}
    with ThreadPoolExecutor(1) as threads, engine.connect() as connection:
        with transaction_on(connection):
            LOCK_CONVERSATIONS.run_plain(connection, asked | {"tenants": ["default"], "conversations": ["talk"]})
            (row,) = TAKE_TURNS.run_plain(connection, asked | {"worker": WORKER})
            assert row.ahead == taking.job_id
            with engine.connect() as other:
                other.execute(text("UPDATE jobs SET due_at = clock_timestamp() WHERE id = :id"), {"id": first.id})
            answer = threads.submit(take, engine, *claimed(engine, first))
            until(lambda: waiting_for_locks(engine))
        assert answer.result() == {first.id: Behind(taking.job_id)}


def test_what_was_said_is_there_with_the_outcome_in_order_and_given_to_the_next(
    engine: Engine, turns: list[Job]
) -> None:
    first, second = claimed(engine, *turns[:2])
    take(engine, first)
    assert settle(engine, first, messages=said("a", "b")) == "settled"
    answer = take(engine, second)[second.job_id]
    assert isinstance(answer, Turn)
    assert [(message.seq, message.content, message.job_id) for message in answer.messages] == [
        (1, "a", turns[0].id),
        (2, "b", turns[0].id),
    ]
    assert settle(engine, second, messages=said("c")) == "settled"
    assert contents(engine) == [(1, "a"), (2, "b"), (3, "c")]


def test_an_outcome_that_is_repeated_or_late_says_nothing_more(engine: Engine, turns: list[Job]) -> None:
    (first,) = claimed(engine, turns[0])
    take(engine, first)
    assert settle(engine, first, messages=said("a")) == "settled"
    assert settle(engine, first, messages=said("a")) == "repeated"
    (second,) = claimed(engine, turns[1])
    take(engine, second)
    writer_of(engine, WORKER).intend([intent(second)])
    expire_leases(engine)
    assert take_over(engine) == 1
    assert settle(engine, second, messages=said("late")) == "late"
    assert contents(engine) == [(1, "a")]


def test_nobody_says_anything_without_the_turn_and_the_outcome_is_taken_back(engine: Engine, turns: list[Job]) -> None:
    first, second = claimed(engine, *turns[:2])
    take(engine, first)
    refused = settle(engine, second, messages=said("out of turn"))
    assert isinstance(refused, RequestRefused)
    assert turns[1].refresh().state is State.RUNNING
    assert contents(engine) == []


def test_turns_of_several_conversations_are_written_together(engine: Engine, lone_producer: Producer) -> None:
    names = ["x", "y", "z"]
    jobs = [lone_producer.enqueue("talk.say", {"conversation_id": name, "text": "t"}) for name in names]
    attempts = {attempt.job_id: attempt for attempt in claimed(engine, *jobs)}
    wanted = [TurnWanted(attempts[j.id].lease, "default", name) for j, name in zip(jobs, names, strict=True)]
    with engine.connect() as connection:
        assert set(take_turns(connection, WORKER, wanted)) == {job.id for job in jobs}
        writer_of(engine, WORKER).intend([intent(attempt) for attempt in attempts.values()])
        outcomes = [
            settlement(attempts[j.id], conversation=("default", name), messages=said(name, name))
            for j, name in zip(jobs, names, strict=True)
        ]
        answers = settle_with(connection, WORKER, outcomes, on_accepted=lambda _: None)
        assert set(answers.values()) == {"settled"}
        for name in names:
            found = messages_of(connection, "default", name, limit=9, size=99)
            assert [(message.seq, message.content) for message in found] == [(1, name), (2, name)]


def test_a_job_that_was_accepted_before_its_action_had_conversations_learns_of_which_it_is_a_turn(
    engine: Engine, turns: list[Job]
) -> None:
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET conversation_id = NULL WHERE id = :id"), {"id": turns[0].id})
    (first,) = claimed(engine, turns[0])
    assert first.conversation_id is None
    assert take(engine, first) == {turns[0].id: Turn(())}
    assert turns[0].refresh().record.conversation_id == "talk"


def test_the_newest_messages_are_given_as_many_and_as_large_as_may_be(engine: Engine, turns: list[Job]) -> None:
    (first,) = claimed(engine, turns[0])
    take(engine, first)
    settle(engine, first, messages=said(*(f"{n:010}" for n in range(20))))
    with engine.connect() as connection:
        assert [m.seq for m in messages_of(connection, *TALK, limit=3, size=1_000)] == [18, 19, 20]
        assert [m.seq for m in messages_of(connection, *TALK, limit=30, size=50)] == [16, 17, 18, 19, 20]
        read = conversation(connection, *TALK, limit=2)
    assert read is not None
    assert (read.length, [m.seq for m in read.messages]) == (20, [19, 20])


@pytest.mark.parametrize("ends", ["cancelled", "expired", "rescued", "resolved"])
def test_where_a_turn_ends_without_its_attempt_the_relays_are_told_of_the_next(
    engine: Engine, turns: list[Job], ends: str
) -> None:
    holder, behind = turns[:2]
    first, second = claimed(engine, holder, behind)
    take(engine, first)
    hold(engine, second)
    _end(engine, holder, first, ends)
    with engine.connect() as connection:
        told = text("SELECT id FROM jobs WHERE state = 'waiting' AND ring_at <= clock_timestamp()")
        assert until(lambda: connection.execute(told).scalars().all()) == [behind.id]


def _end(engine: Engine, holder: Job, attempt: Attempt, ends: str) -> None:
    if ends == "rescued":
        expire_leases(engine)
        with engine.connect() as connection:
            connection.execute(text("UPDATE jobs SET crashes = 9 WHERE id = :id"), {"id": holder.id})
        assert take_over(engine) == 1
        assert holder.refresh().state is State.DEAD
        return
    waits = {"waiting_for": "retry", "delay": 60.0}
    settle(
        engine,
        attempt,
        State.IN_DOUBT if ends == "resolved" else State.WAITING,
        **({} if ends == "resolved" else waits),
    )
    if ends == "cancelled":
        assert holder.cancel() == "cancelled"
    elif ends == "resolved":
        holder.resolve("abandon", reason="gone")
    else:
        expire(engine, holder)


def expire(engine: Engine, job: Job) -> None:
    """Do the part of a relay's round that expires jobs."""
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET deadline_at = clock_timestamp() WHERE id = :id"), {"id": job.id})
        expired: Sequence[UUID] = connection.execute(EXPIRE, {"batch": 9, "worker": "w"}).scalars().all()
        wake_turns(connection, expired)


def test_what_is_said_is_taken_back_with_its_outcome(engine: Engine, lone_producer: Producer, turns: list[Job]) -> None:
    (first,) = claimed(engine, turns[0])
    take(engine, first)
    known = lone_producer.actions()
    request = Request(action="test.add", params={"a": 1, "b": 1}, idempotency_key="standing")
    lone_producer.enqueue_many([request])
    conflict = seal_by(known, replace(request, params={"a": 2, "b": 1}), tenant="default", queue="actions")
    assert isinstance(settle(engine, first, messages=said("a"), follow_ups=(conflict,)), IdempotencyConflict)
    assert contents(engine) == []
    assert settle(engine, first, messages=said("a")) == "settled"
    assert contents(engine) == [(1, "a")]

"""What people do is on record in one shape, whatever it was done to and whichever way it came in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Engine, text

from producer import InvalidRequest, JobNotDead, JobNotInDoubt, Producer, ScheduleNotFound, SurefootError
from producer.acting import acting, user_here, via_host
from producer.ledger.acts import WORDS, ActRecord
from producer.ledger.states import State

LATER = datetime.now(UTC) + timedelta(days=1)


def job_in(producer: Producer, engine: Engine, state: State, key: str) -> str:
    """Return the id of a job that stands so, by the ledger's own word."""
    job = producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key=key, run_at=LATER)
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET state = :state WHERE id = :id"), {"state": state, "id": job.id})
    return str(job.id)


ACTS: dict[str, Callable[[Producer, Engine], object]] = {
    "cancel": lambda p, e: p.cancel(job_in(p, e, State.QUEUED, "c"), reason="why"),
    "retry": lambda p, e: p.retry(job_in(p, e, State.DEAD, "d"), reason="why"),
    "resolve": lambda p, e: p.resolve(job_in(p, e, State.IN_DOUBT, "r"), "retry", reason="why"),
    "breaker": lambda p, _: p.breakers.force("the bank", "open", reason="why", new=True),
    "create key": lambda p, _: p.keys.create("desk", ["read"], reason="why"),
    "revoke key": lambda p, _: p.keys.revoke(p.keys.create("desk", ["read"])[0].id, reason="why"),
    "add schedule": lambda p, _: added(p),
    "pause schedule": lambda p, _: p.schedules.pause(added(p), reason="why"),
    "resume schedule": lambda p, _: (p.schedules.pause(added(p)), p.schedules.resume("nightly", reason="why")),
    "remove schedule": lambda p, _: p.schedules.remove(added(p), reason="why"),
}


def added(producer: Producer) -> str:
    return producer.schedules.add("nightly", "test.add", {"a": 1, "b": 2}, every=3600).name


@pytest.mark.parametrize("act", ACTS)
def test_an_act_is_on_record_with_who_when_from_where_and_why(
    lone_producer: Producer, engine: Engine, act: str
) -> None:
    with acting("ada", "cli on desk-1"):
        ACTS[act](lone_producer, engine)
    (newest, *_) = lone_producer.acts()
    assert (newest.act, newest.who, newest.via) == (act, "ada", "cli on desk-1")
    assert newest.reason == (None if act == "add schedule" else "why")
    assert newest.target
    assert datetime.now(UTC) - newest.at < timedelta(minutes=1)


@pytest.mark.parametrize("act", ["cancel", "retry", "resolve"])
def test_an_act_on_a_job_is_in_its_history_in_the_same_shape(lone_producer: Producer, engine: Engine, act: str) -> None:
    with acting("ada", "cli on desk-1"):
        ACTS[act](lone_producer, engine)
    (newest, *_) = lone_producer.acts()
    event = lone_producer.job(newest.job_id or "").events[-1]
    assert event.data is not None
    assert {name: event.data[name] for name in ("who", "via", "reason")} == {
        "who": "ada",
        "via": "cli on desk-1",
        "reason": "why",
    }


def test_a_program_that_says_nothing_is_named_by_its_user_and_its_host(lone_producer: Producer) -> None:
    lone_producer.keys.create("desk", ["read"])
    (act,) = lone_producer.acts()
    assert (act.who, act.via, act.data) == (user_here(), via_host("python"), {"name": "desk", "scopes": ["read"]})


def test_what_came_to_nothing_is_no_act(lone_producer: Producer, engine: Engine) -> None:
    job_id = job_in(lone_producer, engine, State.SUCCEEDED, "done")
    assert lone_producer.cancel(job_id) == "too_late"
    for refused in (
        lambda: lone_producer.retry(job_id, reason="why"),
        lambda: lone_producer.resolve(job_id, "retry", reason="why"),
        lambda: lone_producer.schedules.pause("nothing"),
        lambda: lone_producer.keys.revoke("nothing"),
    ):
        with pytest.raises(SurefootError):
            refused()
    added(lone_producer)
    added(lone_producer)  # the same again
    assert [act.act for act in lone_producer.acts()] == ["add schedule"]
    assert {JobNotDead, JobNotInDoubt, ScheduleNotFound, InvalidRequest}


def test_acts_are_found_by_who_by_job_and_since_and_are_one_tenant_s(lone_producer: Producer, engine: Engine) -> None:
    with acting("ada", "here"):
        ACTS["cancel"](lone_producer, engine)
    with acting("bob", "there"):
        ACTS["retry"](lone_producer, engine)
    newest, oldest = lone_producer.acts()
    assert (newest.n, oldest.n) == (2, 1)
    assert lone_producer.acts(who="ada") == [oldest]
    assert lone_producer.acts(job_id=newest.job_id) == [newest]
    assert lone_producer.acts(since=newest.at) == [newest]
    assert lone_producer.acts(limit=1) == [newest]
    assert lone_producer.for_tenant("other").acts() == []


def test_acts_at_once_are_numbered_without_gaps(lone_producer: Producer) -> None:
    def create() -> None:
        for _ in range(5):
            lone_producer.keys.create("desk", ["read"])

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found: list[ActRecord] = lone_producer.acts()
    assert [act.n for act in found] == [*range(20, 0, -1)]


def test_acts_are_found_by_kind_in_pages_and_by_a_name_whichever_key_it_came_with(
    lone_producer: Producer, engine: Engine
) -> None:
    for who in ("ada (key abc)", "ada", "adam", "ada (key abc) too"):
        with acting(who, "here"):
            ACTS["create key"](lone_producer, engine)
    with acting("ada", "here"):
        ACTS["cancel"](lone_producer, engine)
    assert [act.n for act in lone_producer.acts(who="ada")] == [5, 4, 2, 1]
    assert [act.n for act in lone_producer.acts(who="ada (key abc)")] == [1]
    assert [act.n for act in lone_producer.acts(act="cancel")] == [5]
    assert [act.n for act in lone_producer.acts(before=4, limit=2)] == [3, 2]
    assert [act.n for act in lone_producer.acts(before=2)] == [1]
    assert lone_producer.acts(before=99) == []
    for wrong in (0, -1, True, 2**63, "1"):
        with pytest.raises(InvalidRequest, match="before"):
            lone_producer.acts(before=wrong)  # type: ignore[arg-type]  # the point


def test_every_kind_of_act_is_one_of_those_to_choose_from() -> None:
    assert set(ACTS) <= set(WORDS)
    assert len(WORDS) == len(set(WORDS))


@pytest.mark.parametrize("reason", ["\0", "\ud800", "x" * 4_097])
@pytest.mark.parametrize("act", ["pause", "resume", "remove", "revoke", "create", "force"])
def test_a_reason_that_cannot_be_kept_is_refused_and_nothing_done(
    lone_producer: Producer, act: str, reason: str
) -> None:
    name, (key, _) = added(lone_producer), lone_producer.keys.create("desk", ["read"])
    before = lone_producer.acts()
    does: dict[str, Callable[[], object]] = {
        "pause": lambda: lone_producer.schedules.pause(name, reason=reason),
        "resume": lambda: lone_producer.schedules.resume(name, reason=reason),
        "remove": lambda: lone_producer.schedules.remove(name, reason=reason),
        "revoke": lambda: lone_producer.keys.revoke(key.id, reason=reason),
        "create": lambda: lone_producer.keys.create("desk", ["read"], reason=reason),
        "force": lambda: lone_producer.breakers.force("the bank", "open", reason=reason, new=True),
    }
    with pytest.raises(InvalidRequest, match="reason"):
        does[act]()
    assert lone_producer.acts() == before


def test_a_reason_may_have_several_lines(lone_producer: Producer) -> None:
    reason = "maintenance\nuntil noon"
    lone_producer.schedules.pause(added(lone_producer), reason=reason)
    lone_producer.breakers.force("the bank", "open", reason=reason, new=True)
    assert [act.reason for act in lone_producer.acts()][:2] == [reason, reason]


def test_since_may_have_any_offset_and_must_have_one(lone_producer: Producer) -> None:
    added(lone_producer)
    odd = timezone(timedelta(hours=-22, minutes=-19))  # Postgres itself reads none beyond sixteen hours
    assert len(lone_producer.acts(since=datetime(1772, 9, 16, tzinfo=odd))) == 1
    assert lone_producer.acts(since=datetime.now(odd) + timedelta(hours=1)) == []
    for wrong in (datetime(2026, 1, 1), datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))):  # noqa: DTZ001  the point
        with pytest.raises(InvalidRequest, match="since"):
            lone_producer.acts(since=wrong)

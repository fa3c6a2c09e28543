"""Conversations, on real workers: one turn at a time, in order, and what was said is there once or never."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text

from producer import ConversationNotFound, InvalidRequest, Producer, Settings, State
from producer.cli import main
from producer.job import Job
from producer.ledger.conversations import LOOK_SECONDS
from producer.ledger.engine import open_engine
from tests.conversation_actions import UNSPEAKABLE
from tests.houses import House, WorkerProcess, house_of, start_worker, until
from tests.integration.test_turns import claimed, hold, said, settle, take, turn

SECONDS = 30.0
LOOK_NOW = "UPDATE jobs SET due_at = now(), ring_at = now() WHERE id = :id RETURNING now()"


def say(producer: Producer, conversation: str, text: str, **params: Any) -> Job:
    asked = {"conversation_id": conversation, "text": text} | params
    return producer.enqueue("talk.say", asked, idempotency_key=f"{conversation}-{text}")


def contents(producer: Producer, conversation: str) -> list[str]:
    return [message.content for message in producer.conversation(conversation).messages]


def is_held(job: Job) -> bool:
    record = job.refresh().record
    return (record.state, record.waiting_for) == (State.WAITING, "conversation")


def test_a_turn_sees_what_was_said_before_and_adds_to_it(house: House) -> None:
    first = say(house.producer, "one", "hello")
    assert first.get(SECONDS) == []
    second = say(house.producer, "one", "again")
    assert second.get(SECONDS) == ["hello", "re: hello"]
    read = house.producer.conversation("one")
    assert [(m.seq, m.role, m.content, m.tokens, m.job_id) for m in read.messages] == [
        (1, "user", "hello", None, first.id),
        (2, "assistant", "re: hello", 3, first.id),
        (3, "user", "again", None, second.id),
        (4, "assistant", "re: again", 3, second.id),
    ]
    assert (read.length, read.turn_of, read.turn_state, read.waiting) == (4, None, None, ())
    assert [message.seq for message in house.producer.conversation("one", limit=1).messages] == [4]


@pytest.fixture
def two_workers(settings: Settings, lone_producer: Producer, tmp_path: Path) -> Iterator[Producer]:
    workers = [start_worker(settings, tmp_path / f"{n}.log", concurrency=20) for n in range(2)]
    yield lone_producer
    for worker in workers:
        worker.stop()


@pytest.mark.timeout(90)
def test_turns_that_come_all_at_once_never_interleave_over_two_workers_and_keep_their_order(
    two_workers: Producer, tmp_path: Path
) -> None:
    log, gate, count = tmp_path / "log", tmp_path / "gate", 25
    requests = [
        {
            "action": "talk.say",
            "params": {"conversation_id": name, "text": f"{n}", "log": str(log), "gate": str(gate)},
            "idempotency_key": f"{name}-{n}",
        }
        for n in range(count)
        for name in ("a", "b", "c")
    ]
    jobs = two_workers.enqueue_many(requests)
    until(lambda: log.exists() and len(log.read_text().splitlines()) == 3)  # one turn of each has begun
    gate.touch()
    for job in jobs:
        job.get(SECONDS)
    notes = [json.loads(line) for line in log.read_text().splitlines()]
    for name in ("a", "b", "c"):
        said = [(note["text"], note["what"]) for note in notes if note["conversation"] == name]
        assert said == [(f"{n}", what) for n in range(count) for what in ("began", "ended")]
        messages = two_workers.conversation(name).messages
        assert [message.seq for message in messages] == list(range(1, 2 * count + 1))
        assert [message.content for message in messages] == [f"{p}{n}" for n in range(count) for p in ("", "re: ")]
    assert len({note["pid"] for note in notes}) == 2


def test_a_turn_behind_another_is_held_with_the_reason_and_takes_no_place(house: House, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = say(house.producer, "held", "first", gate=str(gate))
    until(lambda: first.refresh().state is State.RUNNING)
    others = [say(house.producer, "held", str(n)) for n in range(5)]  # the worker has two places
    for job in others:
        until(lambda job=job: is_held(job))  # type: ignore[misc]  # mypy wants no default
    read = house.producer.conversation("held")
    assert (read.turn_of, read.turn_state, read.waiting) == (first.id, State.RUNNING, tuple(job.id for job in others))
    assert house.producer.enqueue("test.add", {"a": 1, "b": 1}, idempotency_key="beside").get(SECONDS) == {"total": 2}
    held = next(event for event in others[0].events if event.kind == "held")
    assert held.data is not None
    assert (held.data["why"], held.data["waiting_for"], held.data["behind"]) == (
        "another turn is first",
        "conversation",
        str(first.id),
    )
    # Where nobody rings for it, the relays look again.
    assert LOOK_SECONDS <= held.data["delay"] <= 1.25 * LOOK_SECONDS
    gate.touch()
    for job in others:
        job.get(SECONDS)
    assert {job.record.attempt for job in others} == {1}
    # Rung for by the turn before it, long before it would have looked by itself.
    assert all(job.record.age < LOOK_SECONDS for job in others)


def test_a_retried_turn_keeps_its_turn_and_is_there_once(house: House) -> None:
    first, second = say(house.producer, "retried", "first", fail=3), say(house.producer, "retried", "second")
    assert first.get(SECONDS) == []
    assert second.get(SECONDS) == ["first", "re: first"]
    assert first.record.attempt == 4


def test_a_turn_that_fails_says_nothing_and_the_next_has_it(house: House) -> None:
    first, second = say(house.producer, "dead", "first", fail=100), say(house.producer, "dead", "second")
    assert second.get(SECONDS) == []
    assert first.refresh().state is State.DEAD
    assert contents(house.producer, "dead") == ["second", "re: second"]


def test_a_turn_whose_worker_was_killed_is_there_once(own_house: House, tmp_path: Path) -> None:
    producer = own_house.producer
    killed = producer.enqueue("talk.die", {"conversation_id": "killed", "mark": str(tmp_path / "mark")})
    after = say(producer, "killed", "after")
    assert after.get(SECONDS) == ["attempt 2"]
    assert killed.refresh().record.crashes == 1


def test_a_turn_outlives_its_whole_worker_and_nobody_else_gets_it_meanwhile(
    settings: Settings, lone_producer: Producer, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = start_worker(settings, tmp_path / "first.log")
    first = say(lone_producer, "outlives", "first", gate=str(gate))
    until(lambda: first.refresh().state is State.RUNNING)
    second = say(lone_producer, "outlives", "second")
    until(lambda: is_held(second))
    worker.kill()
    gate.touch()
    with house_of(settings, tmp_path) as house:
        assert second.get(SECONDS) == ["first", "re: first"]
        assert first.refresh().record.crashes == 1
        assert contents(house.producer, "outlives") == ["first", "re: first", "second", "re: second"]


def test_a_turn_in_doubt_keeps_it_until_somebody_says_what_became_of_it(house: House) -> None:
    first = say(house.producer, "doubt", "first", doubt=True, effect="unsafe").wait(SECONDS)
    assert first.state is State.IN_DOUBT
    second = say(house.producer, "doubt", "second")
    until(lambda: is_held(second))
    read = house.producer.conversation("doubt")
    assert (read.turn_of, read.turn_state) == (first.id, State.IN_DOUBT)
    first.resolve("abandon", reason="nobody will know")
    assert second.get(SECONDS) == []
    assert second.record.age < LOOK_SECONDS


def test_a_turn_that_is_held_for_long_is_not_claimed_and_held_anew(house: House) -> None:
    first = say(house.producer, "long", "first", doubt=True, effect="unsafe").wait(SECONDS)
    second = say(house.producer, "long", "second")
    until(lambda: is_held(second))
    history = [event.kind for event in second.events]
    engine = open_engine(house.settings.database_url, connections=1, name="test")
    with engine.connect() as connection:
        for _ in range(3):  # as if it had waited for so long
            now = connection.execute(text(LOOK_NOW), {"id": second.id}).scalar_one()
            until(lambda now=now: second.refresh().record.due_at > now)  # type: ignore[misc]  # as above
    engine.dispose()
    assert is_held(second)
    assert [event.kind for event in second.events] == history
    first.resolve("abandon", reason="nobody will know")
    assert second.get(SECONDS) == []


def test_a_turn_that_is_cancelled_while_it_waits_holds_up_nobody(house: House, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = say(house.producer, "cancelled", "first", gate=str(gate))
    until(lambda: first.refresh().state is State.RUNNING)
    second, third = (say(house.producer, "cancelled", text) for text in ("second", "third"))
    for job in (second, third):
        until(lambda job=job: is_held(job))  # type: ignore[misc]  # as above
    assert second.cancel() == "cancelled"
    gate.touch()
    assert third.get(SECONDS) == ["first", "re: first"]
    assert third.record.age < LOOK_SECONDS


@pytest.mark.parametrize("kind", UNSPEAKABLE)
def test_what_cannot_be_kept_is_refused_where_it_is_said_and_nothing_of_the_turn_is_there(
    house: House, kind: str
) -> None:
    name = f"hostile-{kind}"
    job = house.producer.enqueue("talk.hostile", {"conversation_id": name, "kind": kind}).wait(SECONDS)
    assert job.error is not None
    assert (job.state, job.error["type"]) == (State.DEAD, "InvalidRequest")
    assert contents(house.producer, name) == []


def test_turns_may_follow_one_another_as_follow_ups(house: House) -> None:
    house.producer.enqueue("talk.go_on", {"conversation_id": "on", "left": 5}, request_id="on")
    until(lambda: len(house.producer.chain("on")) == 6)
    for record in house.producer.chain("on"):
        house.producer.job(record.id).get(SECONDS)
    assert contents(house.producer, "on") == ["5", "4", "3", "2", "1", "0"]
    assert house.producer.conversation("on").messages[0].tool_calls == [{"id": "call-1", "type": "function"}]


@pytest.mark.parametrize(("params", "is_turn"), [({}, False), ({"conversation_id": "maybe"}, True)], ids=str)
def test_a_job_that_names_no_conversation_is_no_turn(house: House, params: dict[str, str], *, is_turn: bool) -> None:
    assert house.producer.enqueue("talk.maybe", params).get(SECONDS) is is_turn


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 256])
def test_a_conversation_s_name_is_refused_when_it_is_asked_for(house: House, name: str) -> None:
    with pytest.raises(InvalidRequest, match="conversation_id"):
        house.producer.enqueue("talk.say", {"conversation_id": name, "text": "hello"})
    with pytest.raises(InvalidRequest, match="conversation_id"):
        house.producer.conversation(name)


def test_a_conversation_that_never_began_is_not_found(house: House) -> None:
    with pytest.raises(ConversationNotFound, match="'never'"):
        house.producer.conversation("never")


def test_another_tenant_s_conversation_of_the_same_name_is_another(house: House) -> None:
    say(house.producer, "shared", "ours").get(SECONDS)
    settings = house.settings
    other = Producer(Settings(database_url=settings.database_url, redis_url=settings.redis_url, tenant="other"))
    try:
        assert say(other, "shared", "theirs").get(SECONDS) == []
        assert contents(other, "shared") == ["theirs", "re: theirs"]
    finally:
        other.close()
    assert contents(house.producer, "shared") == ["ours", "re: ours"]


def test_the_command_line_shows_a_conversation(house: House) -> None:
    job = say(house.producer, "shown", "hello")
    job.get(SECONDS)
    environment = {
        "SUREFOOT_DATABASE_URL": house.settings.database_url,
        "SUREFOOT_REDIS_URL": house.settings.redis_url,
    }
    shown = CliRunner().invoke(main, ["conversation", "shown"], env=environment)
    assert shown.exit_code == 0
    assert "Conversation shown  2 messages" in shown.output
    assert "re: hello" in shown.output
    facts = json.loads(CliRunner().invoke(main, ["conversation", "shown", "--json"], env=environment).output)
    assert [(message["role"], message["job_id"]) for message in facts["messages"]] == [
        ("user", str(job.id)),
        ("assistant", str(job.id)),
    ]
    missing = CliRunner().invoke(main, ["conversation", "never"], env=environment)
    assert (missing.exit_code, missing.output) == (2, "surefoot: there is no conversation 'never' yet\n")


def test_a_turn_that_nobody_rang_for_comes_by_itself(
    engine: Engine, settings: Settings, lone_producer: Producer, tmp_path: Path
) -> None:
    # As where a worker dies between the outcome of a turn and the ring for the next.
    first, second = turn(lone_producer, 1), turn(lone_producer, 2)
    holder, held = claimed(engine, first, second)
    take(engine, holder)
    hold(engine, held, delay=0.5)
    assert settle(engine, holder, messages=said("a")) == "settled"
    worker = start_worker(settings, tmp_path / "worker.log")
    try:
        assert second.get(SECONDS) == ["a"]
    finally:
        worker.stop()


@pytest.mark.timeout(180)
def test_turns_whose_workers_are_killed_again_and_again_are_all_there_once_and_in_order(
    settings: Settings, lone_producer: Producer, tmp_path: Path
) -> None:
    log, names, count, kills = tmp_path / "log", ("a", "b", "c"), 12, 3
    patient = {"SUREFOOT_CRASH_CAP": f"{kills + 1}"}  # the same turn may be under way each time
    start = partial(start_worker, settings, concurrency=10, environment=patient)
    # All from the beginning: while another one starts, the rest may be through with every turn.
    workers = [start(tmp_path / f"{n}.log") for n in range(kills + 2)]
    try:
        jobs = [say(lone_producer, name, str(n), log=str(log), seconds=0.1) for n in range(count) for name in names]
        for kill in range(kills):
            # Whoever has a conversation tends to keep it: one of them may have them all.
            victim, *_ = until(partial(_amid_turns, log, workers, after=(kill + 1) * count * len(names) // (kills + 2)))
            victim.kill()
            workers.remove(victim)
        for job in jobs:
            job.get(60.0)
    finally:
        for worker in workers:
            worker.stop()
    for name in names:
        messages = lone_producer.conversation(name).messages
        assert [message.seq for message in messages] == list(range(1, 2 * count + 1))
        assert [message.content for message in messages] == [f"{p}{n}" for n in range(count) for p in ("", "re: ")]
    for job, n in zip(jobs, (n for n in range(count) for _ in names), strict=True):
        assert len(job.result) == 2 * n  # each saw all that was said before it
    assert sum(job.record.crashes for job in jobs) >= 1


def _amid_turns(log: Path, workers: Sequence[WorkerProcess], *, after: int) -> list[WorkerProcess]:
    """The workers that are amid a turn, once so many have ended."""
    notes = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")] if log.exists() else []
    if sum(note["what"] == "ended" for note in notes) < after:
        return []
    pids = Counter(note["pid"] for note in notes if note["what"] == "began")
    pids.subtract(note["pid"] for note in notes if note["what"] == "ended")
    return [worker for worker in workers if pids[worker.pid] > 0]

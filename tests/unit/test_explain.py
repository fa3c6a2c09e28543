"""Every state and every wait has a sentence, and a command where there is something to do; the unknown is told, too."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from producer.breaker_words import Transition
from producer.explain import explain
from producer.explain.sentences import SENTENCES
from producer.explain.standing import STANDING, WAITS
from producer.explain.words import span
from producer.ledger.reads import Event, JobRecord, PublishedAction
from producer.ledger.states import State
from producer.ledger.story import Story, Traffic
from tests.unit.test_render import RECORD

NOW = datetime(2025, 3, 2, tzinfo=UTC)
JOB = RECORD.id
ACCEPTED = Event(1, NOW, "accepted", None, None, None, {"request_id": "ticket-42"})
PUBLISHED = PublishedAction("email.send", 1, "unsafe", None, "", {}, {}, {"max_retries": 3}, NOW)
STORY = Story(
    record=RECORD, events=[ACCEPTED], now=NOW, action_version=1, maybe_happened=False, published=PUBLISHED, related={}
)


def story_of(state: State, waiting_for: str | None = None, **more: Any) -> Story:
    facts: dict[str, Any] = {"due_at": NOW + timedelta(seconds=5), "finished_at": None} | more
    record: JobRecord = replace(RECORD, state=state, waiting_for=waiting_for, **facts)
    return replace(STORY, record=record)


def of_event(kind: str, worker: str | None = "host:1", **data: Any) -> str:
    event = Event(2, NOW, kind, 1, 1, worker, data)
    return explain(replace(STORY, events=[ACCEPTED, event])).lines[-1].text


def test_every_state_has_a_sentence() -> None:
    assert set(STANDING) == set(State)


@pytest.mark.parametrize("state", State)
def test_every_state_is_answered_in_whole_sentences_and_its_commands_name_the_job_or_what_to_fill_in(
    state: State,
) -> None:
    found = explain(story_of(state, "retry" if state is State.WAITING else None))
    assert re.fullmatch(r"[A-Z].*\.", found.headline)
    for step in found.next_steps:
        assert step.command is None or shlex.split(step.command)[0] in ("surefoot", "surefoot-worker", "celery")


@pytest.mark.parametrize(
    ("waiting_for", "words", "commands"),
    [
        ("retry", "It is tried again, for attempt 2 of at most 4, at 2025-03-02 00:00:05 UTC, in 5 s", ["cancel"]),
        ("breaker", "It waits for the breaker of the bank. It comes back at", ["breaker", "breaker"]),
        ("rate", "It waits, since the bank asked for patience; due at", []),
        ("concurrency", "It waits for a place: as many of its action as may run were running. Workers have 2 jobs", []),
        ("conversation", "It waits for its turn in conversation", []),
        ("worker", "It waits for another worker: the last one stopped or fell silent.", []),
        ("repair", "It waits for the model to repair its answer", []),
        ("retries", "It waits, since the fleet has used up the retries that the bank may get; due at", []),
        ("budget", "It waits for its budget", ["budgets"]),
        ("policy", "It waits: a policy has not let it pass. It is asked about again at", ["policy", "cancel"]),
        ("the moon", "It waits for the moon; due at", []),
    ],
)
def test_a_wait_says_for_what_and_what_can_be_done(waiting_for: str, words: str, commands: list[str]) -> None:
    story = replace(story_of(State.WAITING, waiting_for, waiting_on="the bank"), traffic=Traffic(0, 3, 2))
    found = explain(story)
    assert words in found.headline
    assert [shlex.split(step.command)[1] for step in found.next_steps if step.command] == commands


def test_the_waits_are_those_that_the_record_names() -> None:
    said = JobRecord.__doc__ or ""
    named = set(re.findall(r"``(\w+)``", said.partition("waiting_for:")[2].partition("waiting_on:")[0]))
    assert named - {"waiting"} == set(WAITS)


def test_a_rate_of_the_action_s_own_is_told_apart_from_somebody_s_patience() -> None:
    assert "as many of its action as may begin" in explain(story_of(State.WAITING, "rate")).headline


def test_what_waited_and_is_due_is_said_to_be_due() -> None:
    found = explain(story_of(State.WAITING, "worker", due_at=NOW - timedelta(seconds=40)))
    assert "Since then it is due: it is due for 40 s, and no worker has taken it." in found.headline


def test_a_crowd_is_counted() -> None:
    story = story_of(State.QUEUED, due_at=NOW - timedelta(seconds=40))
    found = explain(replace(story, traffic=Traffic(9_999, 20, 5)))
    assert "9,999 other jobs of queue actions are due, too; workers have 20 jobs of it." in found.headline


def test_a_worker_that_is_silent_beyond_its_lease_is_called_that() -> None:
    since = NOW - timedelta(seconds=3)
    found = explain(story_of(State.RUNNING, lease_owner="host:9", lease_expires_at=since))
    assert (
        "worker host:9 had it and has been silent for 3 s beyond its lease, so another takes it over" in found.headline
    )


def test_a_job_whose_key_stands_for_a_newer_one_says_so_and_is_not_to_be_retried() -> None:
    found = explain(replace(story_of(State.DEAD), newer=UUID(int=9)))
    assert f"Its key stands for a newer job since, {UUID(int=9)}." in found.headline
    assert [step.command for step in found.next_steps] == [f"surefoot explain {UUID(int=9)}"]


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("dependency held", "the bank had asked everybody for patience"),
        ("rate limit reached", "as many of this action as may begin in that time had begun"),
        ("fleet limit reached", "as many of this action as may run in the whole fleet were running"),
        ("worker limit reached", "as many of this action as may run in that worker were running"),
        ("limits unknown", "Redis was away, and nobody could say how many of this action were running"),
        ("breaker open", "the breaker of the bank was open"),
        ("breaker half-open", "the breaker of the bank was half-open"),
        ("breaker unknown", "nobody could say how the breaker of the bank stood, since Redis was away"),
        ("retries used up", "the fleet had used up the retries that the bank may get"),
        ("full moon", "“full moon”"),
    ],
)
def test_a_gate_says_why_it_put_the_job_off(why: str, words: str) -> None:
    said = of_event("held", why=why, delay=2.5, waiting_on="the bank", waiting_for="x")
    assert said.startswith("It was put off for 2.5 s, which spent no attempt: ")
    assert words in said


def test_a_breaker_is_told_as_it_stood_then_and_not_as_it_stands_since() -> None:
    moves = [
        Transition(name="the bank", epoch=_ms(60), was="open", becomes="closed", reason="probe succeeded", who="b:2"),
        Transition(
            name="the bank", epoch=_ms(-60), was="closed", becomes="open", reason="5 in a row failed", who="a:1",
            job_id=UUID(int=3), until=NOW + timedelta(seconds=30),
        ),
    ]  # fmt: skip
    event = Event(2, NOW, "held", 1, 1, "host:1", {"why": "breaker open", "waiting_on": "the bank"})
    said = explain(replace(STORY, events=[ACCEPTED, event], transitions=moves)).lines[-1].text
    assert f"(open since 2025-03-01 23:59:00 UTC by a:1: 5 in a row failed, job {UUID(int=3)}, until" in said


def _ms(seconds: float) -> int:
    return round((NOW + timedelta(seconds=seconds)).timestamp() * 1000)


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        (
            "policy_denied",
            {"rule": "no refunds at night", "version": 3},
            "Policy denied: rule no refunds at night; version 3.",
        ),
        ("quota-checked", {}, "Quota-checked."),
        ("x" * 900, {"y": "z" * 900}, "X"),
        ("held", {"delay": "soon"}, "It was put off"),
        ("rescued", {}, "Rescued."),
        ("superseded", {"by": "no id"}, "Job no id brought the true result"),
        ("verified", {"verdict": [1], "to": {}}, "host:1 looked up whether the effect happened"),
    ],
)
def test_an_event_that_nobody_knows_or_that_is_not_as_it_should_be_is_told_plainly(
    kind: str, data: dict[str, Any], words: str
) -> None:
    said = of_event(kind, **data)
    assert said.startswith(words)
    assert len(said) < 1_000


@pytest.mark.parametrize("kind", sorted(SENTENCES))
@pytest.mark.parametrize("data", [None, [], "text", 7, {"error": "text"}, {"error": {"type": None}}, {"why": ["a"]}])
def test_no_event_can_keep_the_others_from_being_told(kind: str, data: Any) -> None:
    event = Event(2, NOW, kind, None, None, None, data)
    lines = explain(replace(STORY, events=[ACCEPTED, event])).lines
    assert lines[-1].text


@pytest.mark.parametrize(
    "word", ["\x1b[2J", "\u202e", "\x9b", "\n", "\t", "\r", "\x00", "\u2028", "\u200b", "\u061c", "\U000e0041"]
)
def test_nothing_that_somebody_said_can_touch_a_terminal(word: str) -> None:
    evil = f"a{word}b"
    record = replace(
        RECORD, agent_id=evil, user_id=evil, request_id=evil, idempotency_key=evil, reasoning=evil, queue=evil,
        action=evil, waiting_on=evil, error={"type": evil, "message": evil},
    )  # fmt: skip
    events = [
        ACCEPTED,
        *(Event(2, NOW, kind, 1, 1, evil, {"why": evil, "reason": evil}) for kind in (*SENTENCES, evil)),
    ]
    for state, waits in [*((state, None) for state in State), *((State.WAITING, waits) for waits in WAITS)]:
        story = replace(STORY, record=replace(record, state=state, waiting_for=waits), events=events)
        found = explain(story)
        steps = [text for step in found.next_steps for text in (step.text, step.command or "")]
        for text in (found.headline, *(line.text for line in found.lines), *steps):
            assert word not in text


def test_a_name_with_quotes_is_one_word_of_a_command() -> None:
    found = explain(story_of(State.WAITING, "breaker", waiting_on="a b'; rm -rf ~ #"))
    assert [shlex.split(step.command or "")[2] for step in found.next_steps] == ["a b'; rm -rf ~ #"] * 2


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 ms"), (0.0123, "12 ms"), (0.9996, "1 s"), (1.25, "1.2 s"), (119, "119 s"), (125, "2 min"), (9000, "2 h")],
)
def test_spans_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert span(seconds) == words


SHARE = {"budget": "spenders", "key": {"tenant": "acme", "user": "u"}}


def test_what_an_attempt_reserved_and_spent_of_budgets_is_told() -> None:
    reserved = [SHARE | {"day": "2025-03-02", "usd": "0.5", "tokens": 0, "calls": 1}]
    assert of_event("budget_reserved", budgets=reserved) == (
        "Attempt 1 reserved what it may cost before it began:"
        " $0.5, 1 call of budget spenders (tenant acme user u, on 2025-03-02)."
    )
    further = [SHARE | {"call": 2, "usd": "0.5", "tokens": 1000, "calls": 1}]
    assert of_event("budget_reserved", budgets=further).startswith("Call 2 of attempt 1 reserved")
    spent = [SHARE | {"usd": "0.25", "tokens": 1000, "calls": 1}, {"budget": "b", "key": {}, "usd": "0", "calls": 0}]
    assert of_event("budget_settled", budgets=spent) == (
        "Attempt 1 spent $0.25, 1,000 tokens, 1 call of budget spenders (tenant acme user u); nothing of budget b."
    )


@pytest.mark.parametrize(
    ("why", "facts", "words"),
    [
        (
            "budget exhausted",
            {"usd": {"asked": "0.5", "left": "0.25", "ceiling": "1"}},
            "too little is left of budget spenders (tenant acme user u): $0.5 asked and $0.25 left of $1.",
        ),
        (
            "budget reserved",
            {"calls": {"asked": 1, "left": 0, "ceiling": 10}},
            "spenders (tenant acme user u): 1 call asked and 0 calls left of 10 calls.",
        ),
        (
            "price unknown",
            {"unknown": "usd"},
            "nobody knows what it costs, and budget spenders (tenant acme user u) is a ceiling of money.",
        ),
    ],
)
def test_a_budget_that_puts_an_attempt_off_is_told_with_what_was_left(
    why: str, facts: dict[str, Any], words: str
) -> None:
    held = of_event("held", why=why, waiting_for="budget", waiting_on="spenders", budget=SHARE | facts)
    assert held.endswith(words)


ASKED = {"approval": "a-1", "rule": "large", "version": 2, "reason": "100 or more", "approvers": ["ben", "eve"]}
ASKED |= {"roles": ["finance"], "quorum": 2, "expires_seconds": 3600.0}
DECIDED = {"who": "ben", "via": "cli on desk", "reason": "fine", "quorum": 2}


@pytest.mark.parametrize(
    ("kind", "facts", "words"),
    [
        (
            "policy",
            {"rule": "large", "version": 2, "verdict": "allow"},
            "Policy large, version 2, had nothing against it.",
        ),
        (
            "policy",
            {"rule": "large", "version": 2, "verdict": "deny", "reason": "no"},
            "Policy large, version 2, denied it: “no”.",
        ),
        (
            "policy",
            {"rule": "large", "version": 2, "verdict": "error", "reason": "boom"},
            "Policy large, version 2, could not be asked, so nothing got past it: “boom”.",
        ),
        (
            "approval_requested",
            ASKED,
            "ben, eve, whoever is finance were asked within 60 min: “100 or more”. It takes no worker's place.",
        ),
        (
            "approved",
            DECIDED | {"votes": 1, "to": "awaiting_approval"},
            "ben (cli on desk) approved it, 1 of 2: “fine”; more have to.",
        ),
        ("approved", DECIDED | {"votes": 2, "to": "queued"}, "ben (cli on desk) approved it, 2 of 2: “fine”."),
        ("rejected", DECIDED, "ben (cli on desk) rejected it: “fine”."),
        ("approved_ahead", DECIDED, "ben (cli on desk) approved it before anybody was asked: “fine”."),
        (
            "approval_expired",
            {"why": "nobody decided in time"},
            "Nobody decided it in time. That is no refusal: no person said anything.",
        ),
        ("approval_expired", {"why": "deadline passed"}, "Its deadline passed before anybody had decided it."),
        (
            "approval_escalated",
            {"approvers": ["ben"], "roles": []},
            "Nobody had decided it for so long that more people may: ben.",
        ),
        ("approval_withdrawn", DECIDED, "ben (cli on desk) took it back while it waited for people: “fine”."),
        (
            "approval_edited",
            DECIDED | {"job": "j-2"},
            "ben (cli on desk) asked for something else instead, job j-2: “fine”.",
        ),
        (
            "approval_superseded",
            {"approval": "a-1"},
            "What people were asked before (a-1) does not count any more: the policy asks anew.",
        ),
    ],
)
def test_what_policies_and_people_said_is_told(kind: str, facts: dict[str, Any], words: str) -> None:
    assert of_event(kind, **facts) == words


def of_last(state: State, kind: str, facts: dict[str, Any], waiting_for: str | None = None) -> Story:
    return replace(story_of(state, waiting_for), events=[ACCEPTED, Event(2, NOW, kind, 1, 1, "host:1", facts)])


def test_who_is_asked_of_a_job_that_waits_for_people_is_said_first_and_how_to_answer() -> None:
    found = explain(of_last(State.AWAITING_APPROVAL, "approval_requested", ASKED))
    assert found.headline == (
        "It does not run yet: ben, eve, whoever is finance are asked, and 2 of them have to approve it, asked at"
        " 2025-03-02 00:00:00 UTC: “100 or more”. It takes no worker's place meanwhile."
    )
    commands = [step.command for step in found.next_steps]
    assert commands[:2] == [f"surefoot approval {JOB}", f"surefoot approve {JOB} --digest DIGEST --reason REASON"]


def test_what_nobody_decided_is_no_refusal_and_a_refusal_says_whose() -> None:
    undecided = explain(of_last(State.EXPIRED, "approval_expired", {"why": "nobody decided in time"}))
    assert "nobody decided it in time. Nobody has refused it." in undecided.headline
    assert "ben refused it: “fine”." in explain(of_last(State.REJECTED, "rejected", DECIDED)).headline


def test_a_policy_that_cannot_be_asked_is_said_to_hold_the_job() -> None:
    facts = {"why": "policy failed", "rule": "large", "waiting_for": "policy", "delay": 5.0}
    found = explain(of_last(State.WAITING, "held", facts, "policy"))
    assert "policy large could not be asked, and nothing gets past a policy that cannot be" in found.headline
    assert "It was put off for 5 s, which spent no attempt: policy large could not be asked" in found.lines[-1].text

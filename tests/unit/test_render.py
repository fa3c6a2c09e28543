"""Jobs as people and programs read them: secrets out, nothing that somebody asked for able to touch the terminal."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console, RenderableType

from producer import render
from producer.as_text import json_of
from producer.conversation import Conversation, Message
from producer.ledger.reads import Event, JobRecord
from producer.ledger.states import State
from tests.unit.json_values import CANARY

NOW = datetime(2025, 3, 1, 23, 30, tzinfo=UTC)
RECORD = JobRecord(
    id=UUID(int=7),
    tenant="default",
    action="email.send",
    idempotency_key="invoice-7",
    key_derived=False,
    rerun=0,
    replays=2,
    state=State.SUCCEEDED,
    waiting_for=None,
    waiting_on=None,
    queue="actions",
    priority=5,
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    accepted_at=NOW,
    due_at=NOW,
    deadline_at=None,
    attempt=1,
    crashes=0,
    fence=1,
    effect="unsafe",
    lease_owner=None,
    lease_expires_at=None,
    cancel_requested_at=None,
    finished_at=NOW,
    looks_left=None,
    conversation_id=None,
    degraded_by=None,
    repairs=0,
    request_id="ticket-42",
    parent_job_id=None,
    agent_id="desk",
    user_id="ann",
    input={"ticket": 42},
    reasoning="The customer asked for it.",
    params={"to": "a@example.com"},
    result={"message_id": "m-1"},
    fallback=None,
    error=None,
    latency_ms=Decimal("12.345"),
    tokens_in=None,
    tokens_out=None,
    cost_usd=None,
    age=3.5,
)
EVENT = Event(seq=1, at=NOW, kind="accepted", attempt=None, fence=None, worker=None, data={"due_at": "now"})


def drawn(what: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=160, highlight=False).print(what)
    return out.getvalue()


def everything(record: JobRecord, event: Event = EVENT) -> str:
    return (
        drawn(render.chain(record.request_id, [record]))
        + drawn(render.job(record, [event]))
        + drawn(render.jobs([record]))
    )


def test_a_chain_shows_each_decision_with_its_reason_and_its_outcome() -> None:
    shown = drawn(render.chain("ticket-42", [RECORD, replace(RECORD, action="llm.chat")]))
    for expected in (
        "Decision chain ticket-42  2 decisions, $0.000000",
        "1. email.send  succeeded",
        "2. llm.chat  succeeded",
        "The customer asked for it.",
        '{"to": "a@example.com"}',
        '{"message_id": "m-1"}',
        "1 attempt, 12 ms",
    ):
        assert expected in shown


def test_one_decision_is_one() -> None:
    assert "  1 decision, $" in drawn(render.chain("ticket-42", [RECORD]))


def test_a_chain_adds_up_what_is_known_of_its_cost() -> None:
    paid = replace(RECORD, tokens_in=10, tokens_out=2, cost_usd=Decimal("0.0015"))
    unknown = replace(RECORD, tokens_in=10, tokens_out=2)
    shown = drawn(render.chain("ticket-42", [paid, paid, unknown]))
    assert "3 decisions, $0.003000" in shown
    assert "10 + 2 tokens, $0.001500" in shown
    assert "10 + 2 tokens, cost unknown" in shown


def test_a_job_shows_its_history_by_the_time_since_it_began() -> None:
    later = Event(2, NOW + timedelta(seconds=1.5), "claimed", 1, 1, "host:12", None)
    shown = drawn(render.job(RECORD, [EVENT, later]))
    assert "23:30:00.000" in shown
    assert "+1.500 s      claimed   1    host:12" in shown


def test_a_waiting_job_says_for_what_and_until_when() -> None:
    waiting = replace(RECORD, state=State.WAITING, waiting_for="rate", due_at=NOW + timedelta(seconds=5))
    assert "rate until 23:30:05" in drawn(render.jobs([waiting]))
    assert "rate, due 2025-03-01 23:30:05" in drawn(render.job(waiting, [EVENT]))


@pytest.mark.parametrize(
    ("age", "shown"), [(3.5, "3.5 s"), (60, "1.0 min"), (5_400, "1.5 h"), (172_800, "2.0 d")], ids=str
)
def test_an_age_is_shown_in_the_largest_unit_that_fits(age: float, shown: str) -> None:
    assert shown in drawn(render.jobs([replace(RECORD, age=age)]))


SECRET = {"password": CANARY, "note": f"Bearer 0{CANARY}", "deep": [{"api_key": CANARY}]}


@pytest.mark.parametrize(
    "changed",
    [
        {"params": SECRET},
        {"input": SECRET},
        {"result": SECRET},
        {"reasoning": f"because password={CANARY}"},
        {"error": {"type": "ValueError", "message": f"token={CANARY}", "traceback": f"token={CANARY}"}},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_secrets_are_shown_neither_to_people_nor_to_programs(changed: dict[str, Any]) -> None:
    record = replace(RECORD, **changed)
    event = replace(EVENT, data={"error": SECRET})
    assert CANARY not in everything(record, event)
    assert CANARY not in json_of([render.job_facts(record), render.event_facts(event)])


HOSTILE = "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202egnp.exe\u2066 \r\x00 [bold]not[/bold] [/]"


@pytest.mark.parametrize(
    "changed",
    [
        {"reasoning": HOSTILE},
        {"params": {"a": HOSTILE, HOSTILE: 1}},
        {"user_id": HOSTILE},
        {"agent_id": HOSTILE},
        {"request_id": HOSTILE},
        {"idempotency_key": HOSTILE},
        {"queue": HOSTILE},
        {"lease_owner": HOSTILE},
        {"error": {"type": "E", "message": HOSTILE}},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_no_text_can_move_the_cursor_or_be_taken_for_markup(changed: dict[str, Any]) -> None:
    event = replace(EVENT, worker=HOSTILE, data={"why": HOSTILE})
    shown = everything(replace(RECORD, **changed), event)
    assert not {c for c in shown if not c.isprintable()} - {"\n"}
    assert "not[/bold]" in "".join(shown.split())


def test_a_line_break_and_a_tab_stay() -> None:
    shown = drawn(render.chain("r", [replace(RECORD, reasoning="first\nsecond")]))
    assert "\\n" not in shown


def test_a_long_value_is_cut_and_counted() -> None:
    assert "xx… (5,000 characters)" in drawn(render.chain("r", [replace(RECORD, reasoning="x" * 5_000)]))


def test_json_has_times_in_iso_8601_and_money_as_text() -> None:
    facts = json.loads(json_of(render.job_facts(replace(RECORD, cost_usd=Decimal("0.0015")))))
    assert (facts["accepted_at"], facts["cost_usd"], facts["id"]) == (
        "2025-03-01T23:30:00+00:00",
        "0.0015",
        "00000000-0000-0000-0000-000000000007",
    )
    assert facts["trace_id"] == "0af7651916cd43dd8448eb211c80319c"


def test_json_of_anything_else_is_refused() -> None:
    with pytest.raises(TypeError, match="object is not JSON"):
        json_of(object())


def test_a_follow_up_names_the_decision_that_it_follows() -> None:
    child = replace(RECORD, id=UUID(int=8), parent_job_id=RECORD.id)
    assert re.search(r"follows +1\. email\.send", drawn(render.chain("ticket-42", [RECORD, child])))
    assert re.search(f"follows +job {RECORD.id}", drawn(render.chain("ticket-42", [child])))
    assert "follows" not in drawn(render.chain("ticket-42", [RECORD]))


TALK = Conversation(
    id="ticket-42",
    tenant="default",
    created_at=NOW,
    turn_of=UUID(int=7),
    turn_state=State.IN_DOUBT,
    waiting=(UUID(int=8),),
    length=3,
    messages=(
        Message(role="user", content="my password=hunter2secret \x1b[31m[bold]", seq=2, job_id=UUID(int=6), at=NOW),
        Message(
            role="assistant", content="", tool_calls=[{"token": CANARY}], tokens=12, seq=3, job_id=UUID(int=6), at=NOW
        ),
    ),
)


def test_a_conversation_shows_its_messages_in_order_and_whose_turn_it_is() -> None:
    seen = drawn(render.conversation(TALK))
    assert seen.startswith("Conversation ticket-42  3 messages\n")
    assert re.search(r"2 +2025-03-01 23:30:00 +user +my password", seen)
    assert re.search(r"3 +2025-03-01 23:30:00 +assistant +12 +tool calls", seen)
    assert f"turn of job {UUID(int=7)}, in_doubt\nwaiting job {UUID(int=8)}" in re.sub(" +\n", "\n", seen)


def test_a_conversation_is_shown_without_secrets_and_touches_no_terminal() -> None:
    for seen in (drawn(render.conversation(TALK)), json_of(render.conversation_facts(TALK))):
        assert "hunter2secret" not in seen
        assert CANARY not in seen
        assert "\x1b" not in seen
        assert "[bold]" in seen


def test_a_conversation_as_json_is_whole() -> None:
    facts = json.loads(json_of(render.conversation_facts(TALK)))
    assert (facts["turn_of"], facts["waiting"], facts["length"]) == (str(UUID(int=7)), [str(UUID(int=8))], 3)
    assert facts["turn_state"] == "in_doubt"
    assert [message["seq"] for message in facts["messages"]] == [2, 3]
    assert facts["messages"][1]["tool_calls"] == [{"token": "[redacted]"}]


def test_a_fallback_is_shown_as_what_it_is_and_not_as_a_result() -> None:
    degraded = replace(
        RECORD, state=State.DEGRADED, result=None, fallback={"message_id": "none"}, degraded_by="out of retries"
    )
    chain = drawn(render.chain("ticket-42", [degraded]))
    assert re.search(r"degraded +out of retries: the fallback stands in for a result", chain)
    assert re.search(r"fallback +\{\"message_id\": \"none\"\}", chain)
    assert not re.search(r"│ result ", chain)


def test_secrets_of_a_fallback_are_redacted() -> None:
    degraded = replace(RECORD, state=State.DEGRADED, fallback={"password": CANARY}, degraded_by="out of retries")
    assert CANARY not in everything(degraded)
    assert CANARY not in json.dumps(render.job_facts(degraded), default=str)

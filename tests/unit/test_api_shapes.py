"""What the API shows is what the ledger says, and what `HttpProducer` makes of it is the same again."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from producer.api.access import Rates
from producer.api.keys_in_headers import idempotency_key
from producer.api.problems import KINDS, Problem
from producer.api.shapes import ConversationView, EnqueueBody, JobView, ScheduleView
from producer.conversation import Conversation
from producer.envelope import Request
from producer.ledger.reads import Event, JobRecord
from producer.ledger.schedules import ScheduleRecord
from producer.ledger.states import State
from producer.records import record_of


@pytest.mark.parametrize(
    ("view", "record"),
    [
        (JobView, JobRecord),
        (ConversationView, Conversation),
        (ScheduleView, ScheduleRecord),
    ],
)
def test_a_view_has_every_field_of_its_record(view: type, record: type) -> None:
    hidden = {"ConversationView": {"tenant"}, "ScheduleView": {"tenant", "rule"}}.get(view.__name__, set())
    assert {each.name for each in fields(record)} - hidden <= set(view.model_fields)  # type: ignore[attr-defined]


def test_a_body_takes_every_field_of_a_request_but_those_that_are_headers() -> None:
    assert {each.name for each in fields(Request)} - {"idempotency_key", "trace"} == set(EnqueueBody.model_fields)


def test_a_record_comes_out_of_json_as_it_went_in_and_outlives_another_version() -> None:
    told = {"seq": 1, "at": "2026-01-02T03:04:05+00:00", "kind": "accepted", "of_tomorrow": True}
    event = record_of(Event, told)
    assert (event.at, event.worker) == (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), None)
    facts = json.loads(
        '{"id": "00000000-0000-0000-0000-000000000007", "state": "dead", "cost_usd": "0.0125", "age": 1}'
    )
    record = record_of(JobRecord, facts)
    assert (record.id, record.state, record.cost_usd, record.age) == (UUID(int=7), State.DEAD, Decimal("0.0125"), 1.0)


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("invoice-7", "invoice-7"),
        ('"invoice-7"', "invoice-7"),
        ('"a\\"b\\\\c"', 'a"b\\c'),
    ],
)
def test_a_key_in_a_header_is_read_in_quotes_and_without(header: str, key: str) -> None:
    assert idempotency_key(header, derive=False) == key


@pytest.mark.parametrize("header", ['"', '"a"b"', '"a\\x"', '"é"'])
def test_a_key_whose_quotes_are_wrong_is_refused(header: str) -> None:
    with pytest.raises(Problem, match="no string in quotes"):
        idempotency_key(header, derive=False)


def test_a_missing_key_is_derived_only_on_request() -> None:
    assert idempotency_key(None, derive=True) is None
    with pytest.raises(Problem) as missing:
        idempotency_key(None, derive=False)
    assert missing.value.kind == "idempotency-key-missing"


def test_whoever_asks_too_often_waits_until_there_is_room_again() -> None:
    now = 0.0
    rates = Rates(clock=lambda: now)
    assert [rates.seconds_to_wait("k", 2.0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert rates.seconds_to_wait("other", 2.0) == 0.0
    now = 0.5
    assert [rates.seconds_to_wait("k", 2.0) for _ in range(2)] == [0.0, 0.5]
    now = 100.0  # a pause is worth one second's, and no more
    assert [rates.seconds_to_wait("k", 2.0) for _ in range(3)] == [0.0, 0.0, 0.5]


def test_every_kind_of_problem_has_words_and_a_status_that_fits() -> None:
    assert all(400 <= kind.status < 600 and kind.title and kind.again for kind in KINDS.values())

"""What a request must be like to be accepted, and what is fixed about it when it is."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from producer.envelope import Envelope, Request, seal
from producer.errors import InvalidRequest
from producer.trace import current_traceparent, trace_id_of
from tests.unit.json_values import CANARY, texts, values

NOW = datetime(2025, 3, 1, 23, 30, tzinfo=UTC)
ID = UUID(int=7)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

params_values = st.dictionaries(texts, values, max_size=4)


def sealed(tenant: str = "default", version: int = 1, now: datetime = NOW, **asked: Any) -> Envelope:
    request = Request(**{"action": "email.send", "params": {"to": "a@example.com"}, **asked})
    return seal(request, tenant=tenant, version=version, queue="actions", now=now, new_id=lambda: ID)


def refusal(**asked: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        sealed(**asked)
    return caught.value


# ---- refused ---------------------------------------------------------------------------------------------------


class Nowhere(tzinfo):
    """A time zone that does not know its offset, as datetime allows."""

    def utcoffset(self, _moment: datetime | None) -> None:
        return None

    dst = tzname = utcoffset


REFUSED: dict[str, tuple[Mapping[str, Any], str, str]] = {
    "params that are a list": ({"params": [1]}, "params", "must map parameter names to values, not be a list"),
    "params that are text": ({"params": "{}"}, "params", "not be a str"),
    "params with a number as a name": ({"params": {1: 2}}, "params", "has the name 1 of type int"),
    "params with NaN": ({"params": {"a": float("nan")}}, "params.a", "is nan"),
    "input with U+0000": ({"input": ["\x00"]}, "input[0]", "U+0000"),
    "input that is no JSON": ({"input": {"a": {1}}}, "input.a", "is of type set"),
    "no action": ({"action": None}, "action", "is missing"),
    "an action that is no text": ({"action": 7}, "action", "must be text, not int"),
    "an empty action": ({"action": ""}, "action", "must be printable and not empty"),
    "an empty key": ({"idempotency_key": ""}, "idempotency_key", "must be 1 to 255 visible ASCII characters"),
    "a key of 256": ({"idempotency_key": "k" * 256}, "idempotency_key", "must be 1 to 255 visible ASCII"),
    "a key with a newline at its end": ({"idempotency_key": "k\n"}, "idempotency_key", "visible ASCII"),
    "a key with a space": ({"idempotency_key": "a key"}, "idempotency_key", "without spaces"),
    "a key that is not ASCII": ({"idempotency_key": "schlüssel"}, "idempotency_key", "visible ASCII"),
    "a key with a homoglyph": ({"idempotency_key": "invo\u0456ce-7"}, "idempotency_key", "visible ASCII"),
    "a key that turns text around": ({"idempotency_key": "a\u202eb"}, "idempotency_key", "visible ASCII"),
    "a key with a control character": ({"idempotency_key": "a\x1b[2Jb"}, "idempotency_key", "visible ASCII"),
    "a key with DEL": ({"idempotency_key": "a\x7f"}, "idempotency_key", "visible ASCII"),
    "a key that is a number": ({"idempotency_key": 7}, "idempotency_key", "7 must be 1 to 255"),
    "a key beyond writing": ({"idempotency_key": 10**5_000}, "idempotency_key", "this int must be 1 to 255"),
    "a user on two lines": ({"user_id": "a\nb"}, "user_id", "'a\\nb' must be printable and not empty"),
    "half a surrogate as a user": ({"user_id": "\ud800"}, "user_id", "must be printable"),
    "a very long request id": ({"request_id": "r" * 256}, "request_id", "has 256 characters; the limit is 255"),
    "an agent that is no text": ({"agent_id": b"a"}, "agent_id", "must be text, not bytes"),
    "an empty queue": ({"queue": ""}, "queue", "must be printable and not empty"),
    "reasoning with U+0000": ({"reasoning": "a\x00"}, "reasoning", "U+0000"),
    "reasoning with half a surrogate": ({"reasoning": "\udc00"}, "reasoning", "surrogate"),
    "reasoning of 65,537": ({"reasoning": "r" * 65_537}, "reasoning", "65,537 characters; the limit is 65,536"),
    "an empty trace": ({"trace": ""}, "trace", "'' is not a W3C traceparent"),
    "a trace of another version": ({"trace": f"01{TRACE[2:]}"}, "trace", "is not a W3C traceparent"),
    "a trace that is no text": ({"trace": 1}, "trace", "1 is not a W3C traceparent"),
    "priority True": ({"priority": True}, "priority", "True is not 0 (soonest) to 9 (last)"),
    "priority 10": ({"priority": 10}, "priority", "10 is not 0 (soonest) to 9 (last)"),
    "priority -1": ({"priority": -1}, "priority", "-1 is not 0 (soonest) to 9 (last)"),
    "priority 5.0": ({"priority": 5.0}, "priority", "5.0 is not 0"),
    "priority beyond writing": ({"priority": 10**5_000}, "priority", "this int is not 0"),
    "run_at without a zone": ({"run_at": datetime(2025, 1, 1)}, "run_at", "must be a datetime with a time zone"),  # noqa: DTZ001
    "run_at in a zone without an offset": ({"run_at": NOW.replace(tzinfo=Nowhere())}, "run_at", "time zone"),
    "run_at as text": ({"run_at": "2025-03-02T00:00:00Z"}, "run_at", "must be a datetime with a time zone"),
    "deadline without a zone": ({"deadline": datetime(2030, 1, 1)}, "deadline", "with a time zone"),  # noqa: DTZ001
    "deadline in the past": ({"deadline": NOW - timedelta(seconds=1)}, "deadline", "leaves no time"),
    "deadline now": ({"deadline": NOW}, "deadline", "leaves no time to perform the action"),
    "deadline at run_at": (
        {"run_at": NOW + timedelta(days=1), "deadline": NOW + timedelta(days=1)}, "deadline", "leaves no time",
    ),
    "a moment that UTC cannot hold": (
        {"run_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))}, "run_at", "is no moment in UTC",
    ),
    "a moment before all others": ({"run_at": datetime.min.replace(tzinfo=UTC)}, "run_at", "not between the years"),
    "another on_closed": ({"on_closed": "ignore"}, "on_closed", "'ignore' is not replay, rerun_if_failed or rerun"),
    "an on_closed that is a list": ({"on_closed": []}, "on_closed", "[] is not replay"),
}  # fmt: skip


@pytest.mark.parametrize(("asked", "where", "problem"), REFUSED.values(), ids=REFUSED)
def test_a_request_is_refused_with_the_place_and_the_reason(asked: dict[str, Any], where: str, problem: str) -> None:
    error = refusal(**asked)
    assert error.where == where
    assert problem in error.problem


@pytest.mark.parametrize(("asked", "where", "problem"), REFUSED.values(), ids=REFUSED)
def test_every_refusal_survives_pickling_and_copying(asked: dict[str, Any], where: str, problem: str) -> None:
    error = refusal(**asked)
    through_pickle = pickle.loads(pickle.dumps(error))  # noqa: S301  its own bytes
    for twin in (through_pickle, copy.copy(error), copy.deepcopy(error)):
        assert isinstance(twin, InvalidRequest)
        assert (twin.where, twin.problem, twin.index, str(twin)) == (where, error.problem, 0, str(error))
        assert problem in str(twin)


@pytest.mark.parametrize("name", ["action", "user_id", "request_id", "agent_id", "queue", "idempotency_key", "trace"])
def test_a_message_shows_only_the_beginning_of_what_was_refused(name: str) -> None:
    assert len(str(refusal(**{name: "\n" * 100_000}))) < 250


def test_a_value_in_params_is_not_shown() -> None:
    assert CANARY not in str(refusal(params={"a": CANARY, "b": [f"{CANARY}\x00"]}))


# ---- accepted --------------------------------------------------------------------------------------------------


def test_params_and_input_are_stored_as_they_will_be_read_back() -> None:
    envelope = sealed(params={"b": "ä", "a": (1, 1.0)}, input={"ticket": None})
    assert (envelope.params, envelope.input) == ('{"b":"ä","a":[1,1.0]}', '{"ticket":null}')


@given(params_values)
@settings(max_examples=50)
def test_stored_params_read_back_equal(params: dict[str, Any]) -> None:
    assert json.loads(sealed(params=params).params) == params


def test_a_request_without_params_has_none() -> None:
    assert seal(Request(action="a.b"), tenant="t", version=1, queue="q", now=NOW, new_id=lambda: ID).params == "{}"


def test_any_mapping_will_do_as_params() -> None:
    assert sealed(params=MappingProxyType({"a": 1})).params == '{"a":1}'


class Mail(BaseModel):
    """Params with types of their own."""

    to: str
    at: datetime
    weight: Any = None


def test_a_pydantic_model_will_do_as_params() -> None:
    envelope = sealed(params=Mail(to="a@example.com", at=NOW))
    assert json.loads(envelope.params) == {"to": "a@example.com", "at": "2025-03-01T23:30:00Z", "weight": None}


def test_a_pydantic_model_with_NaN_is_refused_although_pydantic_would_write_null() -> None:  # noqa: N802
    assert refusal(params=Mail(to="a", at=NOW, weight=[float("nan")])).where == "params"


@pytest.mark.parametrize("key", ["k", "k" * 255, "!~", "a:b/c?d=%20", "Invoice-7"])
def test_a_key_of_visible_ascii_is_taken_as_it_stands(key: str) -> None:
    envelope = sealed(idempotency_key=key)
    assert (envelope.idempotency_key, envelope.key_derived) == (key, False)


def test_keys_that_differ_in_case_are_two() -> None:
    assert sealed(idempotency_key="a").idempotency_key != sealed(idempotency_key="A").idempotency_key


def test_reasoning_may_span_lines() -> None:
    assert sealed(reasoning="first\n\tsecond").reasoning == "first\n\tsecond"


def test_a_chain_of_its_own_begins_where_no_request_is_named() -> None:
    assert sealed().request_id == str(ID)


def test_the_action_s_queue_is_taken_where_the_request_names_none() -> None:
    assert (sealed().queue, sealed(queue="slow").queue) == ("actions", "slow")


def test_moments_are_stored_in_utc() -> None:
    in_tokyo = (NOW + timedelta(days=1)).astimezone(timezone(timedelta(hours=9)))
    envelope = sealed(run_at=in_tokyo, deadline=in_tokyo + timedelta(microseconds=1))
    assert (envelope.run_at, envelope.deadline) == (in_tokyo, in_tokyo + timedelta(microseconds=1))
    assert {moment.tzinfo for moment in (envelope.run_at, envelope.deadline) if moment} == {UTC}


def test_run_at_may_be_past() -> None:
    assert sealed(run_at=NOW - timedelta(days=1)).run_at == NOW - timedelta(days=1)


# ---- trace -----------------------------------------------------------------------------------------------------


def test_a_given_trace_is_taken_as_it_stands() -> None:
    assert sealed(trace=TRACE).traceparent == TRACE


def test_without_a_trace_the_context_s_own_goes_on() -> None:
    token = current_traceparent.set(TRACE)
    try:
        envelope = sealed()
    finally:
        current_traceparent.reset(token)
    assert envelope.traceparent != TRACE
    assert trace_id_of(envelope.traceparent) == trace_id_of(TRACE)


def test_without_any_trace_a_new_one_begins() -> None:
    assert trace_id_of(sealed().traceparent) != trace_id_of(sealed().traceparent)

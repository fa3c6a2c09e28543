"""What an action knows of its job, and what it reports beside its result."""

from __future__ import annotations

import time
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from producer.errors import InvalidRequest
from producer.trace import is_traceparent, trace_id_of
from tasks import Context
from tasks._context import FOLLOW_UPS_LIMIT, Usage

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def made_context() -> Context:
    return Context(
        job_id=UUID(int=7),
        action="email.send",
        tenant="default",
        attempt=1,
        request_id="r",
        user_id="ada",
        agent_id="desk",
        traceparent=TRACE,
        deadline=time.monotonic() + 60,
        log=None,
    )


@pytest.fixture
def context() -> Context:
    return made_context()


def test_the_downstream_key_is_the_same_for_every_attempt(context: Context) -> None:
    assert replace(context, attempt=2, traceparent="00-x-y-01").downstream_key() == context.downstream_key()


def test_the_downstream_key_names_job_and_step(context: Context) -> None:
    assert context.downstream_key() == "00000000-0000-0000-0000-000000000007:0"
    assert context.downstream_key("refund") == "00000000-0000-0000-0000-000000000007:refund"


def test_the_headers_hand_on_the_trace_in_a_span_of_their_own(context: Context) -> None:
    sent = context.headers()["traceparent"]
    assert is_traceparent(sent)
    assert sent != TRACE
    assert trace_id_of(sent) == context.trace_id == "0af7651916cd43dd8448eb211c80319c"


def test_the_time_left_is_counted_down_and_never_negative(context: Context) -> None:
    assert 0 < context.seconds_left <= 60
    assert replace(context, deadline=time.monotonic() - 1).seconds_left == 0


def test_what_was_not_reported_is_unknown_and_not_zero(context: Context) -> None:
    assert context.usage == Usage(None, None, None)


def test_what_calls_use_adds_up(context: Context) -> None:
    context.used(tokens_in=10, tokens_out=1, cost_usd=Decimal("0.1"))
    context.used(tokens_in=5, tokens_out=0, cost_usd=Decimal("0.2"))
    assert context.usage == Usage(15, 1, Decimal("0.3"))


def test_a_cost_alone_leaves_the_tokens_unknown(context: Context) -> None:
    context.used(cost_usd=Decimal(1))
    assert context.usage == Usage(None, None, Decimal(1))


def test_tokens_alone_leave_the_cost_unknown(context: Context) -> None:
    context.used(tokens_in=10, tokens_out=0)
    assert context.usage == Usage(10, 0, None)


def test_a_follow_up_belongs_to_the_request_the_trace_the_user_and_the_agent_of_its_job(context: Context) -> None:
    context.enqueue("email.send", {"to": "a@example.com"})
    (request,) = context.follow_ups
    assert (request.request_id, request.user_id, request.agent_id) == ("r", "ada", "desk")
    assert request.trace is not None
    assert trace_id_of(request.trace) == context.trace_id
    assert request.trace != context.traceparent


def test_a_follow_up_may_be_on_somebody_elses_behalf(context: Context) -> None:
    context.enqueue("email.send", user_id="bob", agent_id="other")
    assert [(each.user_id, each.agent_id) for each in context.follow_ups] == [("bob", "other")]


def test_a_follow_up_is_asked_for_with_its_arguments_as_they_are_at_the_time(context: Context) -> None:
    params: dict[str, Any] = {"items": []}
    for number in range(2):
        params["items"].append(number)
        context.enqueue("a.b", params, input=params)
    assert [each.params["items"] for each in context.follow_ups] == [[0], [0, 1]]
    assert [each.input["items"] for each in context.follow_ups] == [[0], [0, 1]]


def test_one_follow_up_more_than_an_attempt_may_ask_for_is_refused(context: Context) -> None:
    for _ in range(FOLLOW_UPS_LIMIT):
        context.enqueue("a.b")
    with pytest.raises(InvalidRequest, match="more than 1,000"):
        context.enqueue("a.b")
    assert len(context.follow_ups) == FOLLOW_UPS_LIMIT

"""What may be said in a conversation, and how an action declares that its jobs are turns of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from producer.conversation import Message, checked_message
from producer.envelope import conversation_in
from producer.errors import InvalidRequest
from tasks import Context, InvalidAction, Turn
from tasks._turn import SAID_LIMIT
from tests.unit.test_spec import spec_of

LARGE = "x" * ((1 << 20) + 1)


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_a_message_has_one_of_four_roles(role: str) -> None:
    assert checked_message(role, "hello").role == role


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"role": "narrator"}, "role"),
        ({"role": "User"}, "role"),
        ({"role": None}, "role"),
        ({"role": ["user"]}, "role"),
        ({"content": None}, "content"),
        ({"content": b"bytes"}, "content"),
        ({"content": "a\x00b"}, "content"),
        ({"content": "\udfff"}, "content"),
        ({"content": LARGE}, "content"),
        ({"content": "ä" * (1 << 20)}, "content"),
        ({"tool_calls": [{"name": "\x00"}]}, "tool_calls[0].name"),
        ({"tool_calls": float("nan")}, "tool_calls"),
        ({"tool_calls": [LARGE]}, "tool_calls"),
        ({"tool_calls": object}, "tool_calls"),  # no instance, whose address would be the test's name
        ({"tokens": -1}, "tokens"),
        ({"tokens": True}, "tokens"),
        ({"tokens": 1.5}, "tokens"),
        ({"tokens": 10**12}, "tokens"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_the_ledger_cannot_hold_is_refused_with_its_place(fields: dict[str, Any], where: str) -> None:
    said: dict[str, Any] = {"role": "user", "content": "hello"} | fields
    with pytest.raises(InvalidRequest) as refused:
        checked_message(**said)
    assert refused.value.where == where
    assert len(str(refused.value)) < 300


def test_a_message_may_be_empty_and_as_long_as_the_limit() -> None:
    assert checked_message("assistant", "", tool_calls=[{"id": "1"}], tokens=0).content == ""
    assert len(checked_message("user", LARGE[1:]).content) == 1 << 20


def test_what_is_said_does_not_change_afterwards() -> None:
    calls = [{"id": "1"}]
    turn = Turn("talk")
    turn.append("assistant", "", tool_calls=calls)
    calls.append({"id": "2"})
    assert turn.said == [Message(role="assistant", content="", tool_calls=[{"id": "1"}])]


def test_an_attempt_says_no_more_than_fits_into_its_outcome() -> None:
    turn = Turn("talk")
    for _ in range(SAID_LIMIT):
        turn.append("user", "hello")
    with pytest.raises(InvalidRequest, match="more than 1,000"):
        turn.append("user", "hello")


def test_an_attempt_says_no_more_than_the_next_turn_can_be_given() -> None:
    turn = Turn("talk")
    for _ in range(7):
        turn.append("user", LARGE[1:])
    turn.append("assistant", "", tool_calls=["x" * ((1 << 20) - 5)])
    with pytest.raises(InvalidRequest, match="8,388,608 bytes"):
        turn.append("user", "ää")
    turn.append("user", "x")
    assert len(turn.said) == 9


@pytest.mark.parametrize(("params", "found"), [({}, None), ({"c": None}, None), ({"c": "talk"}, "talk")], ids=str)
def test_the_params_name_the_conversation(params: dict[str, Any], found: str | None) -> None:
    assert conversation_in(params, "c") == found


@pytest.mark.parametrize("name", ["", " \n", "x" * 256, 7, ["talk"], "\x00"], ids=lambda name: repr(name)[:20])
def test_what_cannot_be_a_conversation_s_name_is_refused(name: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        conversation_in({"c": name}, "c")
    assert refused.value.where == "params.c"


def required(talk: str, ctx: Context) -> int:  # noqa: ARG001  only its signature counts
    return 1


def optional(talk: str | None = None, other: int = 1) -> int:  # noqa: ARG001  as above
    return 1


def defaulted(talk: str = "main") -> int:  # noqa: ARG001  as above
    return 1


@pytest.mark.parametrize("function", [required, optional])
def test_an_action_names_the_parameter_that_names_the_conversation(function: Callable[..., Any]) -> None:
    assert spec_of(function, conversation="talk").conversation == "talk"
    assert spec_of(function).conversation is None


@pytest.mark.parametrize(
    ("function", "parameter", "problem"),
    [
        (required, "tlak", "conversation='tlak' names no parameter of type str"),
        (optional, "other", "conversation='other' names no parameter of type str"),
        (required, "ctx", "conversation='ctx' names no parameter of type str"),
        (required, 7, "conversation=7 names no parameter of type str"),
        (defaulted, "talk", "its default is None or there is none"),
    ],
    ids=["no such", "a number", "the context", "no name", "a default"],
)
def test_a_conversation_that_cannot_be_named_does_not_register(
    function: Callable[..., Any], parameter: Any, problem: str
) -> None:
    with pytest.raises(InvalidAction, match=problem):
        spec_of(function, conversation=parameter)

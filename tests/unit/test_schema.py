"""Params held to an action's published schema: every fault by its path, in words for the caller, without a value."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, NotRequired

import pytest
from pydantic import BaseModel, TypeAdapter
from typing_extensions import TypedDict

from producer.errors import InvalidRequest
from producer.ledger.reads import PublishedAction
from producer.schema import check_params, unknown_action
from tests.unit.json_values import CANARY


class Colour(StrEnum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


class Line(BaseModel):
    """One of several, with a type of its own."""

    sku: str
    count: int


class Node(BaseModel):
    """A schema that refers to itself."""

    children: list[Node] = []


ORDER = TypedDict(
    "ORDER",
    {
        "to": str | list[str],
        "lines": NotRequired[list[Line]],
        "colour": NotRequired[Colour],
        "note": NotRequired[str | None],
        "ship": NotRequired[Line | None],
        "method": NotRequired[Literal["GET", "POST"] | None],
        "count": NotRequired[int],
        "tree": NotRequired[Node],
        "pair": NotRequired[tuple[int, str]],
        "anything": NotRequired[Any],
        "odd name": NotRequired[int],
    },
)
ORDER.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]


def published(kind: Any) -> PublishedAction:
    return PublishedAction(
        name="shop.order",
        version=1,
        effect="unsafe",
        queue=None,
        description="",
        params_schema=TypeAdapter(kind).json_schema(),
        result_schema={},
        policy={},
        published_at=datetime(2025, 1, 1, tzinfo=UTC),
    )


ACTION = published(ORDER)


def refusal(params: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        check_params(ACTION, params)
    return caught.value


@pytest.mark.parametrize(
    "params",
    [
        pytest.param({"to": "a"}, id="one of two forms"),
        pytest.param({"to": ["a", "b"]}, id="the other form"),
        pytest.param({"to": ("a", "b")}, id="a tuple, which is stored as a list"),
        pytest.param({"to": "a", "lines": [{"sku": "x", "count": 1.0}]}, id="1.0 as an integer"),
        pytest.param({"to": "a", "note": None, "ship": None, "method": "GET"}, id="nothing where that is allowed"),
        pytest.param({"to": "a", "pair": [1, "x"]}, id="a fixed length"),
        pytest.param({"to": "a", "anything": {"at": [None, True]}}, id="anything"),
    ],
)
def test_params_that_fit_pass(params: Any) -> None:
    check_params(ACTION, params)


@pytest.mark.parametrize(
    ("params", "where", "problem"),
    [
        pytest.param({}, "params", "'to' is a required property", id="missing"),
        pytest.param([], "params", "must be object, not array", id="not an object"),
        pytest.param(None, "params", "must be object, not null", id="null"),
        pytest.param({"to": "a", "nots": 1}, "params.nots", "is not a parameter; did you mean 'note'?", id="near"),
        pytest.param({"to": "a", "zzz": 1}, "params.zzz", "is not a parameter", id="unknown"),
        pytest.param({"to": "a", "\x1b[2J": 1}, 'params["\\u001b[2J"]', "is not a parameter", id="unknown, hostile"),
        pytest.param({"to": "a", 1: 2}, 'params["1"]', "is not a parameter", id="unknown, not text"),
        pytest.param({"to": "a", "count": "1"}, "params.count", "must be integer, not string", id="type"),
        pytest.param({"to": "a", "count": True}, "params.count", "must be integer, not boolean", id="true for 1"),
        pytest.param({"to": "a", "count": 1.5}, "params.count", "must be integer, not number", id="1.5 for 1"),
        pytest.param({"to": "a", "odd name": "x"}, 'params["odd name"]', "must be integer", id="an odd name"),
        pytest.param(
            {"to": "a", "lines": [{"sku": "x", "count": 1}, {"sku": "y", "count": None}]},
            "params.lines[1].count", "must be integer, not null", id="type, deep down",
        ),
        pytest.param({"to": "a", "lines": [{"sku": "x"}]}, "params.lines[0]", "'count' is a", id="missing in it"),
        pytest.param({"to": "a", "colour": "green"}, "params.colour", "must be red or blue", id="enum"),
        pytest.param({"to": 1}, "params.to", "must be string or array, not this integer", id="neither form"),
        pytest.param({"to": ["a", 1]}, "params.to[1]", "must be string, not integer", id="the form meant, deeper"),
        pytest.param({"to": "a", "note": 1}, "params.note", "must be string or null, not this integer", id="optional"),
        pytest.param({"to": "a", "method": "get"}, "params.method", "must be GET or POST", id="optional enum"),
        pytest.param(
            {"to": "a", "ship": {"sku": 1, "count": 1}}, "params.ship.sku", "must be string", id="optional model",
        ),
        pytest.param({"to": "a", "ship": 1}, "params.ship", "must be another form or null", id="neither of those"),
        pytest.param({"to": "a", "pair": [1]}, "params.pair", "must satisfy minItems 2", id="any other keyword"),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_its_path(params: Any, where: str, problem: str) -> None:
    error = refusal(params)
    assert error.where == where
    assert problem in error.problem
    assert error.problem.endswith("(action shop.order)")


def test_several_faults_make_one_message() -> None:
    error = refusal({"count": "x", "extra": 1, "note": 5})
    assert str(error) == (
        "params.extra: is not a parameter; params: 'to' is a required property; params.count: must be integer,"
        " not string; params.note: must be string or null, not this integer (action shop.order)"
    )


def test_a_message_names_ten_faults_at_most() -> None:
    error = refusal({"to": list(range(100_000))})
    assert str(error).count("must be") == 10


def test_very_many_unknown_names_make_a_short_message() -> None:
    assert len(str(refusal({"to": "a"} | {"x" * 200 + str(n): n for n in range(10_000)}))) < 2_000


@pytest.mark.parametrize(
    "params",
    [
        {"to": {"a": CANARY}},
        {"to": "a", "count": CANARY},
        {"to": "a", "colour": CANARY},
        {"to": "a", "method": CANARY},
        {"to": "a", "extra": CANARY},
        {"to": "a", "ship": {"sku": {CANARY: CANARY}, "count": CANARY}},
        {"to": "a", "lines": [CANARY]},
        {"to": "a", "pair": [CANARY]},
        {"note": CANARY},
    ],
)
def test_a_message_holds_no_value(params: Any) -> None:
    assert CANARY not in str(refusal(params))


@pytest.mark.parametrize("levels", [200, 10_000])
def test_params_too_deep_to_be_written_out_are_refused_as_such(levels: int) -> None:
    value: Any = {}
    for _ in range(levels):
        value = {"children": [value]}
    assert refusal({"to": "a", "tree": value}).problem.startswith("is nested deeper than 32 levels")


def test_a_number_too_long_to_be_written_out_is_refused_as_such() -> None:
    assert refusal({"to": 10**5_000}).problem == "is an integer beyond 2^63; pass it as text"


# ---- unknown actions -------------------------------------------------------------------------------------------


def test_an_action_that_nobody_published_says_so_where_there_is_none() -> None:
    assert str(unknown_action("email.send", [])) == (
        "'email.send' is not an action: no worker has published any action here; start one,"
        " or run surefoot-worker publish"
    )


def test_an_action_close_to_a_known_one_is_asked_about() -> None:
    error = unknown_action("email.snd", ["llm.chat", "email.send"])
    assert str(error) == "'email.snd' is not an action; did you mean 'email.send'?"
    assert error.known == ("email.send", "llm.chat")


def test_an_action_unlike_any_known_one_is_answered_with_all_of_them() -> None:
    assert str(unknown_action("zzz", ["llm.chat", "email.send"])) == (
        "'zzz' is not an action; there are email.send, llm.chat"
    )

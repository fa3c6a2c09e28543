"""An action's arguments and results, held to the types that it declares; words without values where they are not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, cast

import pytest
from pydantic import BaseModel, field_serializer, field_validator
from typing_extensions import TypedDict

from producer.errors import InvalidRequest
from tasks import Context
from tests.unit.json_values import CANARY
from tests.unit.test_spec import plain, spec_of

CONTEXT = cast("Context", object())  # handed through untouched


class Line(BaseModel):
    """A parameter with a type of its own."""

    sku: str
    count: int = 1


def order(line: Line, at: datetime, json: Any, schema: Literal["a", "b"], ctx: Context, note: str = "none") -> int:
    return len((line, at, json, schema, ctx, note))


ORDER = {"line": {"sku": "x"}, "at": "2025-01-01T00:00:00Z", "json": [1], "schema": "a"}


def test_arguments_are_of_the_declared_types() -> None:
    arguments = spec_of(order).arguments(ORDER, CONTEXT)
    assert arguments["line"] == Line(sku="x")
    assert arguments["at"] == datetime(2025, 1, 1, tzinfo=UTC)
    assert (arguments["json"], arguments["schema"]) == ([1], "a")


def test_the_context_is_given_by_its_annotation_and_is_no_parameter() -> None:
    spec = spec_of(order)
    assert spec.arguments(ORDER, CONTEXT)["ctx"] is CONTEXT
    assert "ctx" not in spec.params.json_schema()["properties"]


def test_a_function_without_a_context_gets_none() -> None:
    assert spec_of(plain).arguments({"a": 1}, CONTEXT) == {"a": 1}


def test_a_parameter_left_out_keeps_the_function_s_own_default() -> None:
    spec = spec_of(order)
    assert "note" not in spec.arguments(ORDER, CONTEXT)
    assert spec.params.json_schema()["required"] == ["line", "at", "json", "schema"]


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({**ORDER, "extra": CANARY}, "params: extra: Extra inputs are not permitted"),
        ({**ORDER, "ctx": CANARY}, "params: ctx: Extra inputs are not permitted"),
        ({**ORDER, "line": {"sku": "x", "count": CANARY}}, "params: line.count: Input should be a valid integer"),
        ({**ORDER, "schema": CANARY}, "params: schema: Input should be 'a' or 'b'"),
        ({**ORDER, "line": CANARY}, "params: line: "),
        ({}, "params: line: Field required; at: Field required; json: Field required; schema: Field required"),
    ],
)
def test_params_that_do_not_fit_are_refused_without_their_values(params: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        spec_of(order).arguments(params, CONTEXT)
    assert str(caught.value).startswith(problem)
    assert CANARY not in str(caught.value)


class Touchy(BaseModel):
    """A model whose author's own code fails."""

    a: str

    @field_validator("a")
    @classmethod
    def fail(cls, value: str) -> str:
        raise KeyError(value)


def touchy(it: Touchy) -> Touchy:
    return it


def test_a_validator_that_fails_in_its_own_way_is_a_refusal_too() -> None:
    with pytest.raises(InvalidRequest, match=r"^params: cannot be read: KeyError$"):
        spec_of(touchy).arguments({"it": {"a": CANARY}}, CONTEXT)


# ---- results ---------------------------------------------------------------------------------------------------


class Answer(TypedDict):
    """A typed result."""

    at: datetime
    count: int


def answers() -> Answer:
    return Answer(at=datetime(2025, 1, 1, tzinfo=UTC), count=1)


def lines() -> Line:
    return Line(sku="x")


def anything() -> Any:
    return None


def nothing() -> None:
    return None


def test_a_typed_dict_is_written_as_plain_json() -> None:
    assert spec_of(answers).plain_result(answers()) == {"at": "2025-01-01T00:00:00Z", "count": 1}


def test_a_model_is_written_as_plain_json() -> None:
    assert spec_of(lines).plain_result(lines()) == {"sku": "x", "count": 1}


def test_a_dict_will_do_for_a_model() -> None:
    assert spec_of(lines).plain_result({"sku": "x"}) == {"sku": "x", "count": 1}


def test_nothing_is_a_result() -> None:
    assert spec_of(nothing).plain_result(None) is None


class Ungraceful(BaseModel):
    """A model whose author's own code fails on the way out."""

    a: str = CANARY

    @field_serializer("a")
    def fail(self, value: str) -> str:
        raise KeyError(value)


def ungraceful() -> Ungraceful:
    return Ungraceful()


def changed_line() -> Line:
    line = Line(sku="x")
    line.count = cast("Any", CANARY)
    return line


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("function", "returned", "problem"),
    [
        pytest.param(answers, {"at": CANARY, "count": CANARY}, "result: at: ", id="another type"),
        pytest.param(answers, None, "result: it: ", id="none where something is due"),
        pytest.param(lines, changed_line(), "result: cannot be written as JSON: Pydantic", id="a model since changed"),
        pytest.param(ungraceful, Ungraceful(), "result: cannot be written as JSON: ", id="a serialiser that fails"),
        pytest.param(anything, {"a": float("nan")}, "result: holds NaN or an infinity", id="NaN"),
        pytest.param(anything, [float("inf")], "result: holds NaN or an infinity", id="infinity"),
        pytest.param(
            anything, {"a": object()}, "result: cannot be written as JSON: Unable to serialize", id="an object"
        ),
        pytest.param(anything, CYCLE, "result: cannot be written as JSON: Circular reference", id="a cycle"),
        pytest.param(anything, "\x00", "result: holds the character U+0000", id="U+0000"),
        pytest.param(anything, 2**63, "result: is an integer beyond 2^63", id="2^63"),
        pytest.param(anything, "x" * (1 << 20), "result: is larger than 1,048,576 bytes", id="too large"),
    ],
)
def test_a_result_that_is_not_what_it_should_be_is_refused_without_its_value(
    function: Callable[..., Any], returned: Any, problem: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        spec_of(function).plain_result(returned)
    assert str(caught.value).startswith(problem)
    assert CANARY not in str(caught.value)

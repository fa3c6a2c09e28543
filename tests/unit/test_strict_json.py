"""JSON at the door: what not every reader would take alike, and store, is refused; by path and never by value."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from producer.canonical import BYTES_LIMIT, DEPTH_LIMIT, canonical_json, parse_json
from producer.errors import InvalidRequest
from tests.unit.json_values import CANARY


def refusal(value: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        canonical_json(value, where="params")
    return caught.value


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param('{"a": NaN}', "NaN is not a JSON number; use null or a string", id="NaN"),
        pytest.param('{"a": Infinity}', "Infinity is not a JSON number", id="Infinity"),
        pytest.param('{"a": -Infinity}', "-Infinity is not a JSON number", id="-Infinity"),
        pytest.param('{"a": 1e400}', "params.a: is inf, which is not a JSON number", id="1e400"),
        pytest.param('{"a": "\\ud800"}', "params.a: holds half of a surrogate pair", id="lone surrogate in a value"),
        pytest.param(
            '{"\\udc00": 1}', "params (a name in it): holds half of a surrogate", id="lone surrogate in a name"
        ),
        pytest.param('{"a": "\\u0000"}', "params.a: holds the character U+0000", id="U+0000 in a value"),
        pytest.param('{"\\u0000": 1}', "params (a name in it): holds the character U+0000", id="U+0000 in a name"),
        pytest.param('{"a": 1, "a": 2}', "the name 'a' stands twice in one object", id="duplicate names"),
        pytest.param('{"b": {"a": 1, "\\u0061": 2}}', "the name 'a' stands twice", id="duplicate names, one escaped"),
        pytest.param("9223372036854775808", "is an integer beyond 2^63; pass it as text", id="2^63"),
        pytest.param("-9223372036854775809", "is an integer beyond 2^63; pass it as text", id="-2^63 - 1"),
        pytest.param("1" * 20_000, "an integer of 20,000 digits is beyond 2^63; pass it as text", id="20,000 digits"),
        pytest.param("[" * 33 + "]" * 33, "is nested deeper than 32 levels", id="33 levels"),
        pytest.param("[" * 100_000 + "]" * 100_000, "is nested deeper than 32 levels", id="100,000 levels"),
        pytest.param('{"a":' * 100_000, "is nested deeper than 32 levels", id="100,000 levels left open"),
        pytest.param("{'a': 1}", "is not JSON", id="single quotes"),
        pytest.param("[1,]", "is not JSON", id="trailing comma"),
        pytest.param("", "is not JSON", id="nothing"),
        pytest.param(b'"\xff"', "is not JSON", id="bytes that are not UTF-8"),
        pytest.param(b'"\xed\xa0\x80"', "is not JSON", id="a surrogate in UTF-8"),
        pytest.param('"a"'.encode("utf-16"), "is not JSON", id="UTF-16"),
    ],
)
def test_text_that_readers_would_take_differently_is_refused(text: str | bytes, problem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_json(text, where="params")
    assert problem in str(caught.value)


def test_a_duplicate_among_very_many_names_is_found_at_once() -> None:
    text = "{" + ",".join(f'"{number}":0' for number in range(60_000)) + ',"59999":1}'
    with pytest.raises(InvalidRequest, match="'59999' stands twice"):
        parse_json(text, where="params")


@pytest.mark.parametrize(
    ("value", "where", "problem"),
    [
        pytest.param({"a": [float("nan")]}, "params.a[0]", "is nan, which is not a JSON number", id="NaN"),
        pytest.param({"a": float("-inf")}, "params.a", "is -inf, which is not a JSON number", id="-inf"),
        pytest.param({"a": {"b": "x\x00y"}}, "params.a.b", "holds the character U+0000", id="U+0000 in a value"),
        pytest.param(
            {"a": {"x\x00y": 1}}, "params.a (a name in it)", "holds the character U+0000", id="U+0000 in a name"
        ),
        pytest.param(["\ud800"], "params[0]", "holds half of a surrogate pair", id="lone surrogate in a value"),
        pytest.param(
            {"\udfff": 1}, "params (a name in it)", "holds half of a surrogate pair", id="lone surrogate in a name"
        ),
        pytest.param({"a": 2**63}, "params.a", "beyond 2^63", id="2^63"),
        pytest.param({"a": -(2**63) - 1}, "params.a", "beyond 2^63", id="-2^63 - 1"),
        pytest.param({"a": 10**20_000}, "params.a", "beyond 2^63", id="20,000 digits"),
        pytest.param({"a": {1: 2}}, "params.a", "has the name 1 of type int; names are text", id="a number as a name"),
        pytest.param(
            {10**5_000: 2}, "params", "has the name this int of type int", id="a number beyond writing as a name"
        ),
        pytest.param({None: 2}, "params", "has the name None of type NoneType; names are text", id="None as a name"),
        pytest.param({"a": datetime(2025, 1, 1, tzinfo=UTC)}, "params.a", "is of type datetime", id="datetime"),
        pytest.param({"a": b"x"}, "params.a", "is of type bytes", id="bytes"),
        pytest.param({"a": {1, 2}}, "params.a", "is of type set", id="set"),
        pytest.param({"a": Decimal("1.5")}, "params.a", "is of type Decimal", id="Decimal"),
        pytest.param({"a b": [object()]}, 'params["a b"][0]', "is of type object", id="any object, under an odd name"),
    ],
)
def test_a_value_that_is_not_json_is_refused_with_its_path(value: Any, where: str, problem: str) -> None:
    error = refusal(value)
    assert error.where == where
    assert problem in error.problem


def test_a_type_that_is_not_json_is_refused_with_advice() -> None:
    assert refusal({"a": b""}).problem.endswith("pass text, a number, true, false, null, a list or a dict")


def test_a_refusal_names_no_value() -> None:
    assert CANARY not in str(refusal({"a": CANARY, "b": [CANARY, f"{CANARY}\x00"]}))


@pytest.mark.parametrize("levels", [33, 100_000])
def test_objects_nested_too_deep_are_refused(levels: int) -> None:
    assert refusal(nested(levels)).problem == "is nested deeper than 32 levels"


def test_thirty_two_levels_with_something_in_them_are_accepted() -> None:
    text = "[" * DEPTH_LIMIT + "1" + "]" * DEPTH_LIMIT
    assert canonical_json(parse_json(text, where="params"), where="params") == text


def test_what_holds_a_request_may_be_given_another_depth() -> None:
    text = "[" * 33 + "]" * 33
    assert json.dumps(parse_json(text, where="the line", depth_limit=33)) == text


def cycle_of_lists() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def cycle_of_objects() -> Any:
    value: dict[str, Any] = {}
    value["a"] = [value]
    return value


@pytest.mark.parametrize("cyclic", [cycle_of_lists, cycle_of_objects])
def test_an_object_that_holds_itself_is_refused(cyclic: Callable[[], Any]) -> None:
    assert refusal(cyclic()).problem == "is nested deeper than 32 levels"


def test_an_object_that_unfolds_without_end_is_refused_before_it_does() -> None:
    value: Any = "x" * 1_000
    for _ in range(DEPTH_LIMIT):
        value = [value, value]
    assert "is larger than 1,048,576 bytes" in refusal(value).problem


@pytest.mark.parametrize("character", ["x", "é", "😀"])
def test_the_size_limit_counts_bytes_and_is_exact(character: str) -> None:
    room = BYTES_LIMIT - len('{"a":""}')
    whole, rest = divmod(room, len(character.encode()))
    fitting = {"a": character * whole + "x" * rest}
    assert len(canonical_json(fitting, where="params").encode()) == BYTES_LIMIT
    assert refusal({"a": fitting["a"] + "x"}).problem.startswith("is larger than 1,048,576 bytes; store it elsewhere")


def test_a_byte_order_mark_is_passed_over() -> None:
    assert parse_json(b"\xef\xbb\xbf[1]", where="x") == [1]

"""The one text that stands for a JSON value: RFC 8785, held to its vectors and to another implementation."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
import rfc8785
from hypothesis import assume, example, given, settings

from producer.canonical import canonical_json, parse_json
from tests.unit.json_values import values

# RFC 8785, appendix B: IEEE 754 bits and how ECMAScript writes them.
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items())
def test_numbers_are_written_as_in_rfc_8785(bits: str, text: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical_json(number, where="x") == text


def test_names_are_ordered_as_in_rfc_8785() -> None:
    # Section 3.2.3. By code points, the emoji would come last.
    ordered = ["\r", "1", "\x80", "ö", "€", "😀", "\ufb33"]
    written = json.loads(canonical_json(dict.fromkeys(sorted(ordered, reverse=True)), where="x"))
    assert list(written) == ordered


def test_the_example_of_rfc_8785_is_written_as_there() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '€$\x0f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }
    assert canonical_json(value, where="x") == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def accepted_by_rfc8785(value: Any) -> bool:
    try:
        rfc8785.dumps(value)
    except rfc8785.CanonicalizationError:
        return False
    return True


@given(values.filter(accepted_by_rfc8785))
@settings(max_examples=100)
def test_whatever_rfc8785_accepts_is_written_as_it_writes_it(value: Any) -> None:
    assert canonical_json(value, where="x") == rfc8785.dumps(value).decode()


def as_doubles(value: Any) -> Any:
    """What JSON says of numbers: 1 and 1.0 are one, and beyond 2^53 only doubles are told apart."""
    if isinstance(value, dict):
        return {name: as_doubles(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [as_doubles(inner) for inner in value]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def holds_a_double_written_as_too_large_an_integer(value: Any) -> bool:
    """ECMAScript writes doubles up to 1e21 without an exponent; from 2^63 on, such an integer is refused."""
    if isinstance(value, dict):
        return any(map(holds_a_double_written_as_too_large_an_integer, value.values()))
    if isinstance(value, list):
        return any(map(holds_a_double_written_as_too_large_an_integer, value))
    return isinstance(value, float) and 2**63 <= abs(value) < 1e21


@given(values)
@settings(max_examples=100)
def test_the_canonical_text_reads_back_as_an_equal_value(value: Any) -> None:
    assert as_doubles(json.loads(canonical_json(value, where="x"))) == as_doubles(value)


@given(values)
@settings(max_examples=100)
@example(float(2**62))
def test_the_canonical_text_is_its_own(value: Any) -> None:
    assume(not holds_a_double_written_as_too_large_an_integer(value))
    text = canonical_json(value, where="x")
    assert canonical_json(json.loads(text), where="x") == text


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 2**53 + 1, 0, -1])
def test_integers_are_written_in_full(number: int) -> None:
    assert canonical_json(parse_json(str(number), where="x"), where="x") == str(number)


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        pytest.param(1.0, 1, id="1.0 and 1"),
        pytest.param(1e2, 100, id="1e2 and 100"),
        pytest.param(-0.0, 0, id="-0.0 and 0"),
        pytest.param((1, (2,)), [1, [2]], id="a tuple and a list"),
        pytest.param({"a": 1, "b": 2}, {"b": 2, "a": 1}, id="names in another order"),
        pytest.param("\u00e9", "é", id="an escape and its character"),
    ],
)
def test_one_value_has_one_text_however_it_is_written(mine: Any, other: Any) -> None:
    assert canonical_json(mine, where="x") == canonical_json(other, where="x")


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        pytest.param(True, 1, id="true and 1"),
        pytest.param(False, 0, id="false and 0"),
        pytest.param(None, "null", id="null and its name"),
        pytest.param(1, "1", id="a number and its digits"),
        pytest.param([], {}, id="empty list and object"),
        pytest.param({"a": None}, {}, id="null and missing"),
        pytest.param("\u00e9", "e\u0301", id="a character and its parts: no normalisation"),
    ],
)
def test_different_values_have_different_texts(mine: Any, other: Any) -> None:
    assert canonical_json(mine, where="x") != canonical_json(other, where="x")

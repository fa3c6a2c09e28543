"""Where two requests differ: what a conflict says, by path and never by value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from producer.canonical import canonical_json, differing_paths, path_to
from tests.unit.json_values import CANARY, values


@pytest.mark.parametrize(
    ("mine", "other", "paths"),
    [
        pytest.param({"a": 1}, {"a": 1.0}, (), id="one number"),
        pytest.param({"a": 1, "b": 2}, {"a": 1, "b": 3}, ("params.b",), id="a value"),
        pytest.param({"a": 1}, {"a": True}, ("params.a",), id="1 and true"),
        pytest.param({"a": 1}, {"b": 1}, ("params.a", "params.b"), id="names on one side only"),
        pytest.param({"a": None}, {}, ("params.a",), id="null and missing"),
        pytest.param({"a": [1, 2, 3]}, {"a": [1, 0, 0]}, ("params.a[1]", "params.a[2]"), id="items"),
        pytest.param({"a": [1]}, {"a": [1, 2]}, ("params.a",), id="length of a list"),
        pytest.param({"a": [1]}, {"a": {"b": 1}}, ("params.a",), id="list and object"),
        pytest.param({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, ("params.a.b.c",), id="deep down"),
        pytest.param({"to whom": 1}, {"to whom": 2}, ('params["to whom"]',), id="a name with a space"),
        pytest.param(
            {'"\n\x1b': 1}, {'"\n\x1b': 2}, ('params["\\"\\n\\u001b"]',), id="a name out of a terminal's dreams"
        ),
        pytest.param({"": 1}, {"": 2}, ('params[""]',), id="an empty name"),
        pytest.param({"a": 2**60}, {"a": float(2**60)}, ("params.a",), id="equal to Python, not as texts"),
        pytest.param((1, 2), [1, 2], (), id="tuple and list"),
    ],
)
def test_paths_name_every_place(mine: Any, other: Any, paths: tuple[str, ...]) -> None:
    assert differing_paths(mine, other) == paths


@given(values, values)
@settings(max_examples=100)
def test_two_values_differ_somewhere_exactly_if_their_canonical_texts_do(mine: Any, other: Any) -> None:
    same = canonical_json(mine, where="x") == canonical_json(other, where="x")
    assert (differing_paths(mine, other) == ()) is same


def test_a_path_holds_no_value() -> None:
    paths = differing_paths({"a": CANARY, "b": [{"c": CANARY}], "d": CANARY}, {"a": 1, "b": [{"c": 2}]})
    assert paths == ("params.a", "params.b[0].c", "params.d")


def test_a_very_long_name_is_cut_in_a_path() -> None:
    assert len(path_to("params", "x" * 1_000_000)) < 100

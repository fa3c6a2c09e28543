"""A model's answer held to what was asked for."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tasks import InvalidAnswer, Refused
from tasks._answers import FAULTS_TOLD, parsed

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def test_what_fits_is_returned() -> None:
    assert parsed('{"n": 1, "m": 2}', SCHEMA) == {"n": 1, "m": 2}
    assert parsed("[1, 2]", None) == [1, 2]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Sure: {}", "it is not the JSON that was asked for"),
        ("", "it is not the JSON that was asked for"),
        ('{"n": NaN}', "it is not the JSON that was asked for"),
        ("{}", "it does not fit the schema: $: 'n' is a required property"),
        ('{"n": "one"}', "it does not fit the schema: $.n: 'one' is not of type 'integer'"),
    ],
)
def test_what_does_not_is_refused_in_words_with_the_answer(text: str, problem: str) -> None:
    with pytest.raises(InvalidAnswer) as caught:
        parsed(text, SCHEMA)
    assert problem in str(caught.value)
    assert caught.value.answer == text


def test_of_many_faults_some_are_told() -> None:
    with pytest.raises(InvalidAnswer) as caught:
        parsed(str(list(range(100))), {"items": {"type": "string"}})
    assert str(caught.value).count("is not of type") == FAULTS_TOLD


@pytest.mark.parametrize(
    "schema",
    [{"type": "nothing"}, {"$ref": "#/$defs/missing"}, {"$ref": "http://127.0.0.1:1/schema.json"}],
    ids=["no schema", "a part that is missing", "one that is elsewhere"],
)
def test_a_schema_that_cannot_be_held_to_is_a_refusal_and_nothing_is_fetched(
    schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", None)
    with pytest.raises(Refused, match="the schema cannot be held to"):
        parsed("{}", schema)

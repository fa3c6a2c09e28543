"""A JSON schema in words, as the page of an action has it."""

from __future__ import annotations

from typing import Any

import pytest

from producer.api.console.schemas import Field, fields_of, type_of

NODE = {"$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}}}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, "text"),
        ({"type": "string", "format": "date-time"}, "text (date-time)"),
        ({"type": "integer", "minimum": 1, "maximum": 9}, "whole number, from 1, up to 9"),
        ({"type": "number", "exclusiveMinimum": 0}, "number, more than 0"),
        ({"type": "boolean"}, "true or false"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text or null"),
        ({"type": ["string", "null"]}, "text or null"),
        ({"type": "array", "items": {"type": "integer"}}, "list of whole numbers"),
        ({"type": "array"}, "list"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "object of text"),
        ({"type": "object", "properties": {"a": {}, "b": {}}}, "object with a, b"),
        ({"enum": ["GET", "PUT"]}, '"GET" or "PUT"'),
        ({"enum": list(range(20))}, " or ".join(map(str, range(12))) + " or …"),
        ({"const": 3}, "3"),
        ({}, "anything"),
        ({"$ref": "#/$defs/nowhere"}, "anything"),
        ({"$ref": "elsewhere"}, "anything"),
        (NODE | {"$ref": "#/$defs/Node"}, "object with next"),
    ],
)
def test_a_type_is_said_in_words(schema: dict[str, Any], words: str) -> None:
    assert type_of(schema) == words


def test_fields_come_in_their_order_with_what_must_be_given() -> None:
    schema = {
        "type": "object",
        "properties": {
            "to": {"type": "string", "description": "Whom."},
            "copies": {"type": "integer", "default": 1},
            "node": {"$ref": "#/$defs/Node"},
            "odd": True,
        },
        "required": ["to"],
        **NODE,
    }
    assert fields_of(schema) == [
        Field("to", "text", is_required=True, default="", about="Whom."),
        Field("copies", "whole number", is_required=False, default="1", about=""),
        Field("node", "object with next", is_required=False, default="", about=""),
    ]


def test_what_is_no_object_has_no_fields_and_what_refers_to_itself_ends() -> None:
    assert fields_of({"type": "string"}) == []
    nested = {"anyOf": [{"$ref": "#"}, {"type": "null"}]}
    assert type_of(nested) == "anything or null"  # as far as anybody follows it

"""What a JSON schema says of an object, as lines that a person reads: its fields, their types, what each is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from producer.as_text import json_of

# Of an enumeration, as many as one takes in.
CHOICES = 12
# A schema may refer to itself.
DEEPEST = 4
BOUNDS = {
    "minimum": "from {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "up to {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "{} characters or more",
    "maxLength": "{} characters at most",
    "minItems": "{} or more",
    "maxItems": "{} at most",
    "pattern": "as {}",
}

SEVERAL = {"whole number": "whole numbers", "number": "numbers", "object": "objects"}

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an object.

    Attributes:
        name: As it is written.
        type: In words.
        default: As JSON; empty where it must be given, or nothing is said of it.
        about: What its author wrote of it.
    """

    name: str
    type: str
    is_required: bool
    default: str
    about: str


def fields_of(schema: Schema) -> list[Field]:
    """Return the fields of an object's schema in its order; none for anything else."""
    found = _resolved(schema, schema)
    required = found.get("required", ())
    properties = found.get("properties")
    if not isinstance(properties, Mapping):
        return []
    return [
        Field(
            name=name,
            type=type_of(each, schema),
            is_required=name in required,
            default=json_of(each["default"]) if "default" in each else "",
            about=str(each.get("description", "")),
        )
        for name, each in properties.items()
        if isinstance(each, Mapping)
    ]


def type_of(schema: Schema, root: Schema | None = None, depth: int = 0) -> str:
    """Return what a value has to be, in words: ``text``, ``list of whole numbers``, ``number or null``."""
    root = schema if root is None else root
    found = _resolved(schema, root)
    if depth > DEEPEST:
        return "…"
    for word in ("anyOf", "oneOf"):
        if isinstance(found.get(word), list):
            # In the order in which they come, each once: an author's own types may read alike.
            return " or ".join(dict.fromkeys(type_of(each, root, depth + 1) for each in found[word]))
    if "const" in found:
        return json_of(found["const"])
    if isinstance(found.get("enum"), list):
        choices = [json_of(each) for each in found["enum"][:CHOICES]]
        return " or ".join(choices) + (" or …" if len(found["enum"]) > CHOICES else "")
    bounds = [words.format(found[name]) for name, words in BOUNDS.items() if name in found]
    return ", ".join([_plain(found, root, depth), *bounds])


def _plain(schema: Schema, root: Schema, depth: int) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return " or ".join(_plain({**schema, "type": each}, root, depth) for each in kind)
    if kind == "array":
        items = schema.get("items")
        each = type_of(items, root, depth + 1) if isinstance(items, Mapping) and items else ""
        return f"list of {SEVERAL.get(each, each)}" if each else "list"
    if kind == "object":
        values = schema.get("additionalProperties")
        if isinstance(values, Mapping) and values:
            return f"object of {type_of(values, root, depth + 1)}"
        inner = schema.get("properties")
        return f"object with {', '.join(inner)}" if isinstance(inner, Mapping) and inner else "object"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    said = words.get(str(kind), str(kind) if kind else "anything")
    return f"{said} ({schema['format']})" if "format" in schema else said


def _resolved(schema: Schema, root: Schema) -> Schema:
    """Return a schema, or the one that it refers to within its root."""
    for _ in range(DEEPEST):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        found: Any = root
        for step in reference[2:].split("/"):
            found = found.get(step, {}) if isinstance(found, Mapping) else {}
        schema = {**found, **{name: each for name, each in schema.items() if name != "$ref"}}
    return schema

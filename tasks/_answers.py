"""Holding a model's answer to what was asked for, in words that the model can be told."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from producer.canonical import DEPTH_LIMIT, parse_json
from producer.errors import InvalidRequest
from tasks._outcomes import InvalidAnswer, Refused

FAULTS_TOLD = 5


def parsed(text: str, schema: Mapping[str, Any] | None) -> Any:
    """Return the JSON value that a model answered.

    Args:
        text: The whole answer.
        schema: A JSON Schema (2020-12) that the value must fit; None takes any value.

    Raises:
        InvalidAnswer: If it is no JSON, or does not fit; the message says where and why.
        Refused: If the schema is none, or refers to one that is elsewhere: nothing is fetched for it.
    """
    try:
        value = parse_json(text, where="the answer", depth_limit=DEPTH_LIMIT - 1)
    except InvalidRequest as error:
        raise InvalidAnswer(f"it is not the JSON that was asked for: {error}", answer=text) from error
    faults = [] if schema is None else _faults(schema, value)
    if faults:
        raise InvalidAnswer(f"it does not fit the schema: {'; '.join(faults)}", answer=text)
    return value


def _faults(schema: Mapping[str, Any], value: Any) -> list[str]:
    from jsonschema import Draft202012Validator  # noqa: PLC0415  80 ms, for those that hold models to a schema only
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415  as above
    from referencing import Registry  # noqa: PLC0415  as above
    from referencing.exceptions import Unresolvable  # noqa: PLC0415  as above

    try:
        Draft202012Validator.check_schema(schema)
        # A registry of nothing: by itself it would fetch what a schema refers to, from wherever that says.
        found = Draft202012Validator(schema, registry=Registry()).iter_errors(value)
        return [f"{error.json_path}: {error.message}" for error in islice(found, FAULTS_TOLD)]
    except (SchemaError, Unresolvable) as error:
        raise Refused(f"the schema cannot be held to: {str(error).partition(chr(10))[0]}") from error

"""Holding params to an action's published JSON Schema, in words that name the path and never the value."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from producer.canonical import canonical_json, path_to, shown
from producer.errors import InvalidRequest, UnknownAction
from producer.ledger.reads import PublishedAction

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

FAULTS_SHOWN = 10

What = Literal["params", "result"]

# Keywords that a value of the right type need not be held to.
_PLAIN_KEYWORDS = frozenset({"type", "title", "description", "default", "examples"})
_PYTHON_TYPES: dict[str, frozenset[type]] = {
    "string": frozenset({str}),
    "boolean": frozenset({bool}),
    "integer": frozenset({int}),
    "number": frozenset({int, float}),
    "null": frozenset({type(None)}),
}

_JSON_TYPES = {
    dict: "object",
    list: "array",
    tuple: "array",
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
}


def check_params(action: PublishedAction, params: Any) -> None:
    """Raise InvalidRequest for what is wrong with `params`; several faults make one message, up to ten.

    Args:
        action: As its workers published it.
        params: The parameters by name, plain JSON.
    """
    if not fits_plainly(action, params):
        _check(action, "params", params)


def fits_plainly(action: PublishedAction, params: Any) -> bool:
    """Whether the params fit by their names and simple types alone; False says nothing yet.

    Most do, and the whole of JSON Schema costs ten times as much as all else that sealing a request takes.
    """
    names = _simple_types(action)
    if names is None or type(params) is not dict or not names.keys() >= params.keys():
        return False
    if not params.keys() >= _required(action):
        return False
    return all(type(value) in names[name] for name, value in params.items())


def check_result(action: PublishedAction, result: Any) -> None:
    """Raise InvalidRequest for what is wrong with a result that somebody gives in the action's place.

    Args:
        action: As its workers published it.
        result: Plain JSON.
    """
    _check(action, "result", result)


def unknown_action(name: str, known: Iterable[str]) -> UnknownAction:
    """Make the error that says what was probably meant, or that no worker has published anything yet."""
    names = sorted(known)
    if not names:
        return UnknownAction(
            name, names, ": no worker has published any action here; start one, or run surefoot-worker publish"
        )
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}"
    return UnknownAction(name, names, hint)


def _check(action: PublishedAction, what: What, value: Any) -> None:
    try:
        faults = list(islice(_faults(action, what, value), FAULTS_SHOWN))
    except (RecursionError, ValueError):  # jsonschema writes out what it refuses; that can be too much for it
        canonical_json(value, where=what)
        raise
    if faults:
        where, problem = faults[0]
        more = "".join(f"; {w}: {p}" for w, p in faults[1:])
        raise InvalidRequest(where, f"{problem}{more} (action {action.name})")


@lru_cache(maxsize=256)
def _simple_types(action: PublishedAction) -> dict[str, frozenset[type]] | None:
    """Return the Python types that each parameter surely takes, none where that is not so simple."""
    schema = action.params_schema
    if set(schema) - _PLAIN_KEYWORDS - {"properties", "required", "additionalProperties"}:
        return None
    return {name: _types_of(property_) for name, property_ in schema.get("properties", {}).items()}


@lru_cache(maxsize=256)
def _required(action: PublishedAction) -> frozenset[str]:
    return frozenset(action.params_schema.get("required", ()))


def _types_of(schema: Any) -> frozenset[type]:
    if not isinstance(schema, dict):
        return frozenset()
    if set(schema) <= _PLAIN_KEYWORDS and isinstance(schema.get("type"), str):
        return _PYTHON_TYPES.get(schema["type"], frozenset())
    if set(schema) - {"anyOf"} <= _PLAIN_KEYWORDS - {"type"} and isinstance(schema.get("anyOf"), list):
        return frozenset[type]().union(*map(_types_of, schema["anyOf"]))
    return frozenset()


def _faults(action: PublishedAction, what: What, value: Any) -> Iterator[tuple[str, str]]:
    # Not every fault of a megabyte: who sends ten will look at the rest, too.
    errors = islice(_validator(action, what).iter_errors(value), FAULTS_SHOWN)
    for error in sorted(errors, key=lambda e: [str(step) for step in e.absolute_path]):
        yield from _worded(error, what)


@lru_cache(maxsize=256)
def _validator(action: PublishedAction, what: What) -> Draft202012Validator:
    # 80 ms that a process without enqueues need not pay
    from jsonschema import Draft202012Validator, ValidationError  # noqa: PLC0415
    from jsonschema.validators import extend  # noqa: PLC0415

    def any_of(validator: Any, forms: list[Any], value: Any, _schema: Any) -> Iterator[ValidationError]:
        # jsonschema's own collects every fault of every form: seconds for a megabyte of them.
        found = []
        for index, form in enumerate(forms):
            faults = list(islice(validator.descend(value, form, schema_path=index), FAULTS_SHOWN))
            if not faults:
                return
            found.extend(faults)
        yield ValidationError("fits none of its forms", context=found)

    # A tuple is stored as an array, so it is one.
    types = Draft202012Validator.TYPE_CHECKER.redefine("array", lambda _, value: isinstance(value, list | tuple))
    kind: Any = extend(Draft202012Validator, {"anyOf": any_of}, type_checker=types)  # type: ignore[no-untyped-call]
    validator: Draft202012Validator = kind(action.params_schema if what == "params" else action.result_schema)
    return validator


def _worded(error: Any, what: What) -> Iterator[tuple[str, str]]:
    """Word one of jsonschema's findings; `error` is its ValidationError, whose attributes hang on the keyword."""
    where: str = what
    for step in error.absolute_path:
        where = f"{where}[{step}]" if isinstance(step, int) else path_to(where, str(step))
    if error.validator == "required":
        yield where, error.message  # "'to' is a required property": a name, never a value
    elif error.validator == "additionalProperties" and error.validator_value is False:
        allowed = list(error.schema.get("properties", {}))
        for name in sorted(map(str, set(error.instance) - set(allowed)))[:FAULTS_SHOWN]:
            near = difflib.get_close_matches(name, allowed, n=1)
            kind = "a parameter" if where == "params" else "a field"
            yield path_to(where, name), f"is not {kind}" + (f"; did you mean {near[0]!r}?" if near else "")
    elif error.validator == "type":
        yield where, f"must be {_listed(error.validator_value)}, not {_type_of(error.instance)}"
    elif error.validator in ("anyOf", "oneOf"):
        yield from _worded_choice(error, where, what)
    elif error.validator in ("enum", "const"):
        yield where, f"must be {_listed(error.validator_value)}"
    else:
        yield where, f"must satisfy {error.validator} {shown(error.validator_value)}"


def _worded_choice(error: Any, where: str, what: What) -> Iterator[tuple[str, str]]:
    """Word what is wrong with the one form that the value was meant to have, where its type says which."""
    forms = defaultdict(list)
    for finding in error.context:
        forms[finding.schema_path[0]].append(finding)
    near = [found for found in forms.values() if not any(f.validator == "type" and not f.path for f in found)]
    if len(near) == 1:
        for finding in near[0]:
            yield from _worded(finding, what)
        return
    wanted = [form.get("type") or form.get("title") or "another form" for form in error.validator_value]
    yield where, f"must be {_listed(wanted)}, not this {_type_of(error.instance)}"


def _listed(values: Any) -> str:
    return " or ".join(map(str, values)) if isinstance(values, list) else str(values)


def _type_of(value: Any) -> str:
    return "null" if value is None else _JSON_TYPES.get(type(value), type(value).__name__)

"""JSON that is exactly what a dataclass says: a field too many, one too few or one of another type is an error.

Evidence that is read generously would hide what it should show.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints
from uuid import UUID

T = TypeVar("T")
Decoder = Callable[[Any, str], Any]

_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


class UnreadableEvidence(Exception):
    """A file of the evidence is missing, or is not what its format says."""

    def __init__(self, file: str, line: int | None, why: str) -> None:
        """Name the place: `line` counts from 1, and is None where the whole file is meant."""
        super().__init__(f"{file}{'' if line is None else f':{line}'}: {why}")
        self.file, self.line, self.why = file, line, why

    def __reduce__(self) -> tuple[type[UnreadableEvidence], tuple[str, int | None, str]]:
        """Survive pickling."""
        return type(self), (self.file, self.line, self.why)


class _Wrong(ValueError):
    """What is wrong within one value; who reads the file adds the line."""


def parse(text: str | bytes, *, file: str, line: int | None = None) -> Any:
    """Return what strict JSON says: no NaN, no name twice in an object.

    Raises:
        UnreadableEvidence: If it is no such JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
    except ValueError as error:
        raise UnreadableEvidence(file, line, f"not JSON: {error}") from error


def decode(kind: type[T], value: Any, *, file: str, line: int | None = None, path: str = "") -> T:
    """Return the JSON value as `kind`, a dataclass of plain fields, tuples, mappings and dataclasses.

    Fields that have a default are those that the reader fills in; JSON must not name them.

    Raises:
        UnreadableEvidence: If it is anything else; the message says where and what.
    """
    try:
        decoded: T = _decoder(cast("Any", kind))(value, path)
    except ValueError as error:
        raise UnreadableEvidence(file, line, str(error)) from error
    return decoded


def encode(record: Any) -> Any:
    """Return a dataclass as the JSON value that `decode` reads; a field that has a default is left out."""
    if is_dataclass(record):
        return {each.name: encode(getattr(record, each.name)) for each in fields(record) if _is_written(each)}
    if isinstance(record, Mapping):
        return {name: encode(value) for name, value in record.items()}
    if isinstance(record, tuple):
        return [encode(value) for value in record]
    return record


def is_digest(text: str) -> bool:
    """Whether this is a SHA-256 in lower-case hexadecimal digits."""
    return _HEX_DIGEST.fullmatch(text) is not None


def is_job_id(text: str) -> bool:
    """Whether this is a UUID as the ledger writes it."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _is_written(each: Any) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


@cache
def _decoder(kind: Any) -> Decoder:
    origin, parameters = get_origin(kind), get_args(kind)
    if origin is None:
        return _decoder_of_a_class(kind)
    if origin is Literal:
        return _one_of(parameters)
    if origin in (UnionType, Union):  # `int | None`; `Literal["a"] | None`
        (inner,) = (each for each in parameters if each is not NoneType)
        return _or_none(_decoder(inner))
    return _many(_decoder(parameters[0])) if origin is tuple else _mapping(_decoder(parameters[1]))


def _decoder_of_a_class(kind: Any) -> Decoder:
    if kind is Any:
        return lambda value, _: value
    if is_dataclass(kind):
        return _record(kind)
    return _one_of(tuple(kind)) if issubclass(kind, Enum) else _plain(kind)


def _record(kind: Any) -> Decoder:
    hints = get_type_hints(kind)
    decoders = {each.name: _decoder(hints[each.name]) for each in fields(kind) if _is_written(each)}

    def record(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise _Wrong(f"{path or 'the line'} is {_shown(value)}, not an object")
        if value.keys() != decoders.keys():
            raise _Wrong(_other_fields(value, decoders, path))
        return kind(**{name: decoder(value[name], _under(path, name)) for name, decoder in decoders.items()})

    return record


def _other_fields(value: Mapping[str, Any], wanted: Mapping[str, Any], path: str) -> str:
    place = f" in {path}" if path else ""
    unknown, missing = sorted(value.keys() - wanted.keys()), sorted(wanted.keys() - value.keys())
    said = [f"{what} {', '.join(names)}" for what, names in (("unknown", unknown), ("missing", missing)) if names]
    return f"fields{place}: {'; '.join(said)}"


def _one_of(choices: tuple[Any, ...]) -> Decoder:
    known = {each.value if isinstance(each, Enum) else each: each for each in choices}

    def choice(value: Any, path: str) -> Any:
        if not isinstance(value, str) or value not in known:
            raise _Wrong(f"{path} is {_shown(value)}, not one of {', '.join(known)}")
        return known[value]

    return choice


def _or_none(inner: Decoder) -> Decoder:
    return lambda value, path: None if value is None else inner(value, path)


def _many(inner: Decoder) -> Decoder:
    def many(value: Any, path: str) -> Any:
        if not isinstance(value, list):
            raise _Wrong(f"{path} is {_shown(value)}, not a list")
        return tuple(inner(each, f"{path}[{i}]") for i, each in enumerate(value))

    return many


def _mapping(inner: Decoder) -> Decoder:
    def mapping(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise _Wrong(f"{path} is {_shown(value)}, not an object")
        return {name: inner(each, _under(path, name)) for name, each in value.items()}

    return mapping


def _plain(kind: type) -> Decoder:
    def plain(value: Any, path: str) -> Any:
        # JSON writes 1.0 as 1, too; but true is no number.
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind or value in (math.inf, -math.inf):
            raise _Wrong(f"{path} is {_shown(value)}, not {kind.__name__}")
        return value

    return plain


def _under(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Wrong(f"{next(name for name in names if names.count(name) > 1)!r} twice in one object")
    return made


def _no_number(constant: str) -> Any:
    raise _Wrong(f"{constant} is no number")

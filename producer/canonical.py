"""JSON as the ledger can hold it: reading it strictly, writing it in the one form that is compared and hashed.

Pure. What it refuses is an `InvalidRequest` that names the path of the value and never the value, which may be a
secret. Imports nothing of this side but the errors.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

from producer.errors import InvalidRequest

DEPTH_LIMIT = 32
BYTES_LIMIT = 1 << 20
INTEGER_LIMIT = 1 << 63  # Postgres and most readers of JSON stop here; beyond it a number silently changes
SAFE_INTEGER = 1 << 53  # RFC 8785 knows doubles only; larger integers are written out in full instead
SHOWN_LIMIT = 80  # characters of a name or a value in a message: long enough to recognise

_INTEGER_CHARACTERS = len(str(-INTEGER_LIMIT))
_encoded = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps makes one for each call
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,79}")
_ADVICE = "pass text, a number, true, false, null, a list or a dict"


# Where a value stands: a name, or what it stands in and under which name or at which place. Written out for an error
# alone, as by far the most values have none.
_Place: TypeAlias = "str | tuple[_Place, str | int]"


@dataclass(frozen=True, slots=True)
class _Limits:
    depth: int
    characters: float


_LEDGER = _Limits(DEPTH_LIMIT, BYTES_LIMIT)


def parse_json(text: str | bytes, *, where: str, depth_limit: int = DEPTH_LIMIT) -> Any:
    """Read JSON as every reader of it would, and only what the ledger can hold.

    No NaN, no duplicate names, no number that changes, no text that Postgres refuses. Its size is the caller's
    to limit, before reading.

    Args:
        text: Bytes are UTF-8 (RFC 8259 8.1); a byte order mark is passed over.
        where: Names the text in errors.
        depth_limit: How many arrays and objects may stand within one another.

    Raises:
        InvalidRequest: If the text is not such JSON.
    """
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = json.loads(
            decoded, parse_constant=_refuse_constant, parse_int=_read_integer, object_pairs_hook=_refuse_duplicates
        )
    except RecursionError as error:
        raise _too_deep(where, depth_limit) from error
    except ValueError as error:
        raise InvalidRequest(where, f"is not JSON: {error}") from error
    _written(value, where, _Limits(depth_limit, math.inf))
    return value


def canonical_json(value: Any, *, where: str) -> str:
    """Return the one text that stands for `value`: RFC 8785, and integers in full up to 2^63.

    The walk is the check, too: what it returns can be stored in Postgres, read back and compared.

    Raises:
        InvalidRequest: With the path of the first value that is not plain JSON, too deep, or too large.
    """
    text = _written(value, where, _LEDGER)
    if len(text.encode()) > BYTES_LIMIT:
        raise _too_large(where)
    return text


def differing_paths(mine: Any, other: Any, where: str = "params") -> tuple[str, ...]:
    """Return the paths at which the canonical texts of two JSON values differ; never the values."""
    if isinstance(mine, Mapping) and isinstance(other, Mapping):
        names = sorted({*mine, *other})
        found = (
            differing_paths(mine[n], other[n], path_to(where, n)) if n in mine and n in other else (path_to(where, n),)
            for n in names
        )
        return tuple(chain.from_iterable(found))
    if isinstance(mine, list | tuple) and isinstance(other, list | tuple) and len(mine) == len(other):
        pairs = enumerate(zip(mine, other, strict=True))
        return tuple(chain.from_iterable(differing_paths(a, b, f"{where}[{i}]") for i, (a, b) in pairs))
    same = canonical_json(mine, where=where) == canonical_json(other, where=where)
    return () if same else (where,)


def path_to(where: str, name: str) -> str:
    """Return the path of a member: ``params.to``, or ``params["to whom"]`` where the name is not a plain one."""
    if _PLAIN_NAME.fullmatch(name):
        return f"{where}.{name}"
    return f"{where}[{json.dumps(name if len(name) <= SHOWN_LIMIT else name[:SHOWN_LIMIT] + '...')}]"


def shown(value: object) -> str:
    """Return a refused value as a message shows it: recognisable, printable and short."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes out
        return f"this {type(value).__name__}"
    return text if len(text) <= SHOWN_LIMIT else f"{text[: SHOWN_LIMIT - 1]}…"


def is_finite(value: Any) -> bool:
    """Whether a structure is free of NaN and infinities, which pydantic writes as null without a word."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(is_finite, value.values()))
    return all(map(is_finite, value)) if isinstance(value, list | tuple | set | frozenset) else True


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number; use null or a string")


def _read_integer(text: str) -> int:
    # Reading is quadratic in the digits, and Python refuses more than 4,300 of them in words for programmers.
    if len(text) > _INTEGER_CHARACTERS:
        raise ValueError(f"an integer of {len(text):,} digits is beyond 2^63; pass it as text")
    return int(text)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {shown(twice)} stands twice in one object; which one counts would be a guess")
    return found


def _written(value: Any, place: _Place, limits: _Limits, depth: int = 0) -> str:
    if value is None or value is True or value is False:
        return json.dumps(value)
    if isinstance(value, str):
        return _written_text(value, place)
    if isinstance(value, int):
        return _written_integer(value, place)
    if isinstance(value, float):
        return _written_float(value, place)
    if not isinstance(value, dict | list | tuple):
        raise InvalidRequest(_path(place), f"is of type {type(value).__name__}, which is not JSON; {_ADVICE}")
    if depth == limits.depth:
        raise _too_deep(_path(place), limits.depth)
    if isinstance(value, dict):
        return "{" + _joined(_members(value, place, limits, depth + 1), place, limits) + "}"
    items = (_written(item, (place, i), limits, depth + 1) for i, item in enumerate(value))
    return "[" + _joined(items, place, limits) + "]"


def _members(value: dict[Any, Any], place: _Place, limits: _Limits, depth: int) -> Iterator[str]:
    texts = {}
    for name in value:
        if not isinstance(name, str):
            kind = type(name).__name__
            raise InvalidRequest(_path(place), f"has the name {shown(name)} of type {kind}; names are text")
        if problem := _why_not_text(name):
            raise InvalidRequest(f"{_path(place)} (a name in it)", problem)
        texts[name] = _encoded(name)
    # RFC 8785 sorts names by their UTF-16 units, which differs from code points beyond the first plane.
    for name in sorted(texts, key=lambda name: name.encode("utf-16-be")):
        yield f"{texts[name]}:{_written(value[name], (place, name), limits, depth)}"


def _path(place: _Place) -> str:
    if isinstance(place, str):
        return place
    outer, step = place
    return f"{_path(outer)}[{step}]" if isinstance(step, int) else path_to(_path(outer), step)


def _joined(parts: Iterable[str], place: _Place, limits: _Limits) -> str:
    # Given up as soon as it is too large: a list that holds another one twice, and so on, unfolds to 2^32 values.
    kept, left = [], limits.characters
    for part in parts:
        kept.append(part)
        left -= len(part)
        if left < 0:
            raise _too_large(_path(place))
    return ",".join(kept)


def _written_integer(value: int, place: _Place) -> str:
    if not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
        raise InvalidRequest(_path(place), "is an integer beyond 2^63; pass it as text")
    return str(int(value))


def _written_float(value: float, place: _Place) -> str:
    if not math.isfinite(value):
        raise InvalidRequest(_path(place), f"is {value}, which is not a JSON number; use null or text")
    if value.is_integer() and abs(value) < SAFE_INTEGER:
        return str(int(value))  # 1.0 and 1 are one number in JSON
    import rfc8785  # noqa: PLC0415  only floats need it

    return rfc8785.dumps(value).decode()


def _written_text(text: str, place: _Place) -> str:
    if problem := _why_not_text(text):
        raise InvalidRequest(_path(place), problem)
    return _encoded(text)


def check_text(text: str, where: str) -> None:
    """Refuse text that Postgres cannot store."""
    if problem := _why_not_text(text):
        raise InvalidRequest(where, problem)


def _why_not_text(text: str) -> str | None:
    if "\x00" in text:
        return "holds the character U+0000, which Postgres cannot store"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair, which is not text"
    return None


def _too_deep(where: str, limit: int) -> InvalidRequest:
    return InvalidRequest(where, f"is nested deeper than {limit} levels")


def _too_large(where: str) -> InvalidRequest:
    return InvalidRequest(where, f"is larger than {BYTES_LIMIT:,} bytes; store it elsewhere and pass a reference")

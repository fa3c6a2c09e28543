"""Records out of JSON: what was written as text gets the type that its field says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from producer.ledger.states import State

R = TypeVar("R")

_READERS: Mapping[str, Callable[[Any], Any]] = {
    "UUID": UUID,
    "datetime": datetime.fromisoformat,
    "Decimal": lambda told: Decimal(str(told)),
    "State": State,
    "float": float,
}


def record_of(kind: Callable[..., R], told: Mapping[str, Any], **given: Any) -> R:
    """Return a record of a dataclass made of plain JSON.

    Args:
        kind: The dataclass.
        told: Its fields by name. What it does not know is passed over, and what is missing is None: the other side may
            be a version ahead, or behind.
        given: Fields that are no plain JSON.
    """
    values = {name: _read(reader, told.get(name)) for name, reader in _readers_of(kind)}
    return kind(**values | given)


@cache
def _readers_of(kind: Any) -> tuple[tuple[str, Callable[[Any], Any] | None], ...]:
    return tuple((each.name, _READERS.get(str(each.type).removesuffix(" | None"))) for each in fields(kind))


def _read(reader: Callable[[Any], Any] | None, value: Any) -> Any:
    return value if reader is None or value is None else reader(value)

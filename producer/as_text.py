"""Values as text, for terminals and pages alike; what is not to be seen of it, each of them writes out itself."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID


def json_of(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON: what that has no form for, such as a moment or an id, as its text."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=_plain)


def as_text(value: Any, *, indent: int | None = None) -> str:
    """Return text as it stands, and anything else as JSON."""
    return value if isinstance(value, str) else json_of(value, indent=indent)


def as_span(seconds: float) -> str:
    """Return a duration in the unit that fits."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")

"""Putting something else in the place of a part of the product, or saying that it has no such part any more."""

from __future__ import annotations

import re
from typing import Any

from producer.ledger.prepared import Prepared


def part(owner: Any, name: str) -> Any:
    """Return an attribute, one that a module has imported, too; raises `LookupError` if there is no such attribute."""
    if not hasattr(owner, name):
        raise LookupError(name)
    return getattr(owner, name)


def put(owner: Any, name: str, defect: Any) -> None:
    """Put a defect in the place of an attribute; raises `LookupError` if there is no such attribute."""
    part(owner, name)
    setattr(owner, name, defect)


def replaced(text: str, right: str, wrong: str) -> str:
    """Return a text with another part; raises `LookupError` if it has no such part."""
    if right not in text:
        raise LookupError(right)
    return text.replace(right, wrong)


def rewrite(statement: Prepared, right: str, wrong: str) -> None:
    """Change a statement's text, prepared or not; raises `LookupError` if nothing matches the pattern `right`."""
    for form in ("_prepare", "_plain"):
        before = getattr(statement, form)
        after = re.sub(right, wrong, before, flags=re.DOTALL)
        if after == before:
            raise LookupError(right)
        setattr(statement, form, after)

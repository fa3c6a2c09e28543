"""What takes an action back: another action, which is asked for as any other is, and goes through every gate."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from producer.canonical import shown
from tasks._signature import InvalidAction

if TYPE_CHECKING:
    from tasks._spec import ActionSpec

RESULT = "result"
_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")


def undo_of(name: str, declared: Any) -> str | None:
    """Return the name of the action that takes this one back.

    Raises:
        InvalidAction: If that is no action's name, or this one's own.
    """
    if declared is None:
        return None
    if not isinstance(declared, str) or not _NAME.fullmatch(declared) or declared == name:
        raise InvalidAction(f"{name}: undo={shown(declared)} is not another action's name, such as {name + '.undo'!r}")
    return declared


def check_undoing(actions: Mapping[str, ActionSpec]) -> None:
    """See that each action that takes another back can be asked for by what that one leaves; those that are loaded.

    Raises:
        InvalidAction: If one needs what neither the params nor the result of the other has.
    """
    for spec in actions.values():
        undoing = None if spec.undo is None else actions.get(spec.undo)
        if undoing is None:
            continue
        has = spec.params.json_schema().get("properties", {}).keys() | {RESULT}
        lacking = [each for each in undoing.params.json_schema().get("required", ()) if each not in has]
        if lacking:
            raise InvalidAction(
                f"{spec.name}: undo={spec.undo!r} needs {', '.join(lacking)}, which neither its params nor result= have"
            )

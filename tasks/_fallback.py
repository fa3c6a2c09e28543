"""What stands in for an action's result where none can be had: a plain value, or a function that makes one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal

from producer.canonical import shown
from tasks._hook import Hook, read_hook
from tasks._signature import InvalidAction, typed_parameters

OnExhausted = Literal["dead", "degrade", "fail"]

FALLBACK_SECONDS = 5.0
ON_EXHAUSTED: tuple[OnExhausted, ...] = ("dead", "degrade", "fail")


class _Nothing(Enum):
    NOTHING = "nothing"

    def __repr__(self) -> str:
        return self.name


# Not None, which may well be what stands in for a result.
NOTHING: Final = _Nothing.NOTHING


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a fallback is wanted. Its function gets it as the parameter that is annotated ``Cause``.

    Attributes:
        rule: The rule by which the job has no result: a row of docs/retries-and-breakers.md.
        error: ``{"type", "message"}`` of what went wrong last; None where nothing was tried.
    """

    rule: str
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fallback:
    """An action's fallback, as its author declared it.

    Attributes:
        hook: Makes what stands in; None where `value` does.
        value: What stands in where there is no function; held to the action's result type.
        seconds: How long the function may take.
        cause_name: The parameter that receives the `Cause`; None where it wants none.
    """

    hook: Hook | None = None
    value: Any = None
    seconds: float
    cause_name: str | None = None

    @property
    def place(self) -> str:
        """What the job's history calls it."""
        return "value" if self.hook is None else self.hook.place


def make_fallback(name: str, action: Callable[..., Any], declaration: Mapping[str, Any]) -> Fallback | None:
    """Read what an author declared as the fallback of an action; None where that is `NOTHING`.

    Raises:
        InvalidAction: Saying of which action, what is wrong, and what to write instead.
    """
    declared, seconds = declaration.get("fallback", NOTHING), declaration.get("fallback_seconds", FALLBACK_SECONDS)
    if declared is NOTHING:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise InvalidAction(f"{name}: fallback_seconds={shown(seconds)} must be a number of seconds, more than 0")
    if not callable(declared):
        return Fallback(value=declared, seconds=seconds)
    hints = typed_parameters(declared, f"{name}, fallback") if inspect.isroutine(declared) else {}
    cause_name = next((n for n, kind in hints.items() if kind is Cause), None)
    must_be = "a plain value, or a function; write it with def"
    own = () if cause_name is None else (cause_name,)
    hook = read_hook(name, "fallback", action, declared, must_be=must_be, own=own)
    return Fallback(hook=hook, seconds=seconds, cause_name=cause_name)


def resolve_on_exhausted(name: str, declared: Any, fallback: Fallback | None) -> OnExhausted:
    """Return what becomes of a job for which everything was tried; None degrades it where there is a fallback.

    Raises:
        InvalidAction: If it cannot be that.
    """
    if declared is None:
        return "dead" if fallback is None else "degrade"
    if declared not in ON_EXHAUSTED:
        raise InvalidAction(f"{name}: on_exhausted={shown(declared)} is none of {', '.join(ON_EXHAUSTED)}")
    if declared == "degrade" and fallback is None:
        raise InvalidAction(f"{name}: on_exhausted='degrade' needs fallback=, the value or function that stands in")
    chosen: OnExhausted = declared
    return chosen


def supersede_after(
    name: str, declaration: Mapping[str, Any], fallback: Fallback | None, longest_backoff: float
) -> float | None:
    """Return after how many seconds a degraded job's action is tried once more for a true result; None is never.

    Raises:
        InvalidAction: If it cannot be.
    """
    declared = declaration.get("supersede", False)
    if declared is False:
        return None
    if fallback is None:
        raise InvalidAction(f"{name}: supersede= needs fallback=, which a true result takes the place of")
    if declaration.get("conversation") is not None:
        raise InvalidAction(f"{name}: supersede= is not for turns of a conversation, which has gone on by then")
    if declared is True:
        return longest_backoff
    if not isinstance(declared, (int, float)) or not 0 <= declared < math.inf:
        raise InvalidAction(f"{name}: supersede={shown(declared)} must be True, or a number of seconds")
    return float(declared)

"""Looking up whether an effect happened: an action's verify hook, and what it may answer."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Any

from producer.canonical import shown
from tasks._hook import Hook, read_hook
from tasks._signature import InvalidAction


@dataclass(frozen=True, slots=True)
class Happened:
    """The effect happened; `result` is what the action would have returned, and is held to its type."""

    result: Any = None


@dataclass(frozen=True, slots=True)
class DidNotHappen:
    """The effect is not there. It is taken for good only once none can arrive any more, and only if found twice."""


@dataclass(frozen=True, slots=True)
class CannotTell:
    """The look-up says neither; it is asked again later."""

    why: str = ""


Answer = Happened | DidNotHappen | CannotTell
Verify = Callable[..., Answer | Awaitable[Answer]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VerifyHook(Hook):
    """An action's look-up, as its author declared it.

    Attributes:
        after: Seconds after an attempt's timeout until none of its effects can arrive any more.
        every: Seconds between two looks at least; it doubles while the look-up cannot tell.
    """

    after: float
    every: float


def make_hook(name: str, action: Callable[..., Any], function: Any, *, after: Any, every: Any) -> VerifyHook:
    """Read a verify hook's signature against its action's.

    Raises:
        InvalidAction: Saying of which action, what is wrong, and what to write instead.
    """
    for word, seconds in (("verify_after", after), ("verify_every", every)):
        _check_seconds(name, word, seconds)
    must_be = "a function that looks the effect up; write it with def"
    read = read_hook(name, "verify", action, function, must_be=must_be)
    return VerifyHook(**{each.name: getattr(read, each.name) for each in fields(Hook)}, after=after, every=every)


def _check_seconds(name: str, word: str, seconds: Any) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise InvalidAction(f"{name}: {word}={shown(seconds)} must be a number of seconds, more than 0")

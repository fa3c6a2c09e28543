"""Looking up whether an effect happened: an action's verify hook, and what it may answer."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from producer.canonical import shown
from tasks._context import Context
from tasks._signature import InvalidAction, context_name_of, typed_parameters


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


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyHook:
    """An action's look-up, as its author declared it.

    Attributes:
        function: Sync or async; takes some of the action's parameters by name, and a `Context` where it wants one.
        after: Seconds after an attempt's timeout until none of its effects can arrive any more.
        every: Seconds between two looks at least; it doubles while the look-up cannot tell.
        names: Which parameters it takes.
        defaults: Of the action's own signature, for params that a request left out.
        context_name: The parameter that receives the `Context`; None where it wants none.
    """

    function: Verify
    after: float
    every: float
    names: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    context_name: str | None

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)

    def arguments(self, params: Mapping[str, Any], context: Context) -> dict[str, Any]:
        """Return its keyword arguments, out of the action's params as the action would get them."""
        given = {**self.defaults, **params}
        arguments = {name: given[name] for name in self.names if name in given}
        return arguments if self.context_name is None else arguments | {self.context_name: context}


def make_hook(name: str, action: Callable[..., Any], function: Any, *, after: Any, every: Any) -> VerifyHook:
    """Read a verify hook's signature against its action's.

    Raises:
        InvalidAction: Saying of which action, what is wrong, and what to write instead.
    """
    if not inspect.isroutine(function):
        raise InvalidAction(
            f"{name}: verify={shown(function)} must be a function that looks the effect up; write it with def"
        )
    for word, seconds in (("verify_after", after), ("verify_every", every)):
        _check_seconds(name, word, seconds)
    where = f"{name}, verify"
    hints = typed_parameters(function, where)
    context_name = context_name_of({k: v for k, v in hints.items() if k != "return"}, where)
    offered, wanted = inspect.signature(action).parameters, inspect.signature(function).parameters
    for parameter in wanted.values():
        if parameter.name not in (*offered, context_name) and parameter.default is parameter.empty:
            raise InvalidAction(
                f"{where}: {parameter.name!r} is none of the action's parameters, which are {', '.join(offered)}"
            )
    return VerifyHook(
        function=function,
        after=after,
        every=every,
        names=tuple(n for n in wanted if n in offered and n != context_name),
        defaults={n: p.default for n, p in offered.items() if p.default is not p.empty},
        context_name=context_name,
    )


def _check_seconds(name: str, word: str, seconds: Any) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise InvalidAction(f"{name}: {word}={shown(seconds)} must be a number of seconds, more than 0")

"""A hook: a function that stands beside an action, and takes some of the action's own parameters by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from producer.canonical import shown
from tasks._context import Context
from tasks._signature import InvalidAction, context_name_of, place_of, typed_parameters


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hook:
    """A hook, as an action's author declared it.

    Attributes:
        function: Sync or async.
        names: Which of the action's parameters it takes.
        defaults: Of the action's own signature, for params that a request left out.
        context_name: The parameter that receives the `Context`; None where it wants none.
    """

    function: Callable[..., Any]
    names: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    context_name: str | None

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def place(self) -> str:
        """What the job's history calls it."""
        return place_of(self.function)

    def arguments(self, arguments: Mapping[str, Any], context: Context, **own: Any) -> dict[str, Any]:
        """Return its keyword arguments, out of the action's, and what is its `own`."""
        given = {**self.defaults, **arguments}
        chosen = {name: given[name] for name in self.names if name in given} | own
        return chosen if self.context_name is None else chosen | {self.context_name: context}


def read_hook(
    name: str,
    word: str,
    action: Callable[..., Any],
    function: Any,
    *,
    must_be: str,
    own: Collection[str] = (),
) -> Hook:
    """Read a hook's signature against its action's.

    Args:
        name: The action's.
        word: By which it is declared, such as ``verify``.
        action: The action's function.
        function: What was declared.
        must_be: What it must be, in words, where it is no function.
        own: Names of parameters that receive what is the hook's own.

    Raises:
        InvalidAction: Saying of which action, what is wrong, and what to write instead.
    """
    if not inspect.isroutine(function):
        raise InvalidAction(f"{name}: {word}={shown(function)} must be {must_be}")
    where = f"{name}, {word}"
    hints = typed_parameters(function, where)
    context_name = context_name_of({n: kind for n, kind in hints.items() if n not in ("return", *own)}, where)
    offered, wanted = inspect.signature(action).parameters, inspect.signature(function).parameters
    for parameter in wanted.values():
        if parameter.name not in (*offered, *own, context_name) and parameter.default is parameter.empty:
            raise InvalidAction(
                f"{where}: {parameter.name!r} is none of the action's parameters, which are {', '.join(offered)}"
            )
    return Hook(
        function=function,
        names=tuple(n for n in wanted if n in offered and n not in (context_name, *own)),
        defaults={n: p.default for n, p in offered.items() if p.default is not p.empty},
        context_name=context_name,
    )

"""What an attempt costs, as its author declares it, and the budgets that this process's code declares."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from producer.budget_words import Budget, OnExhausted, make_budget
from producer.canonical import shown
from producer.errors import InvalidBudget
from tasks._context import Context
from tasks._cost import Cost
from tasks._hook import Hook, read_hook
from tasks._signature import InvalidAction

CostOf = Callable[..., Cost]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CostHook:
    """What an action costs, as its author declared it.

    Attributes:
        hook: Makes it of the params; None where `value` is it.
    """

    hook: Hook | None = None
    value: Cost | None = None

    def of(self, arguments: Mapping[str, Any], context: Context) -> Cost:
        """Return what an attempt may cost at most.

        Raises:
            InvalidBudget: If the author's function says something that is no `Cost`. What it raises itself comes
                through.
        """
        if self.hook is None:
            return self.value or Cost(usd=None)
        cost = self.hook.function(**self.hook.arguments(arguments, context))
        if not isinstance(cost, Cost):
            raise InvalidBudget("cost", f"{shown(cost)} is no Cost")
        return cost


def make_cost(name: str, action: Callable[..., Any], declared: Any) -> CostHook | None:
    """Read what an author declared as the cost of an action; None where he declared none.

    Raises:
        InvalidAction: Saying of which action, what is wrong, and what to write instead.
    """
    if declared is None or isinstance(declared, Cost):
        return None if declared is None else CostHook(value=declared)
    must_be = "a Cost, or a plain function that returns one"
    hook = read_hook(name, "cost", action, declared, must_be=must_be)
    if hook.is_async:
        raise InvalidAction(f"{name}: cost={shown(declared)} must be {must_be}")
    return CostHook(hook=hook)


@dataclass(frozen=True, slots=True)
class DeclaredBudget:
    """A budget and the module that declares it."""

    budget: Budget
    module: str


_budgets: dict[str, DeclaredBudget] = {}


def budget(
    name: str,
    *,
    per: str | Iterable[str],
    actions: str | Iterable[str] | None = None,
    usd: str | float | Decimal | None = None,
    tokens: int | None = None,
    calls: int | None = None,
    on_exhausted: OnExhausted = "hold",
    only_for: Mapping[str, str] | None = None,
    instead_of: str | None = None,
    version: int = 1,
) -> None:
    """Declare a budget: no attempt begins for which too little is left. Workers publish it when they start.

    An operator may set other ceilings at any time (``surefoot budget set``); those stand until he takes them back.

    Args:
        name: Unique: up to 100 of a-z, 0-9, ``.``, ``_`` and ``-``.
        per: What has a share of its own: any of ``action``, ``request``, ``agent``, ``user``, ``tenant`` and ``day``
            (in UTC); with several, each combination.
        actions: Names, or patterns such as ``llm.*``. None is every action's calls, and the money and the tokens of
            those that declare a cost; one that is named and declares none does not run under a ceiling of these.
        usd: US dollars; `tokens` and `calls` likewise: the most that each share may spend.
        tokens: A model's, in and out together.
        calls: Attempts, and what they reserve beside.
        on_exhausted: ``hold`` has a job wait until there is more, ``refuse`` has it fail.
        only_for: Whose jobs alone, by ``tenant``, ``agent`` or ``user``; None is everybody's.
        instead_of: The budget in whose place it is for these: they have this ceiling and not that one.
        version: Raise it with a change, so that a worker of older code that starts later does not undo it.

    Raises:
        InvalidBudget: When the module is imported, if it cannot be kept.

    Example:
        >>> budget("tenant-day", per=("tenant", "day"), usd=50)
        >>> budget(
        ...     "acme-day", per=("tenant", "day"), usd=500, only_for={"tenant": "acme"}, instead_of="tenant-day"
        ... )
    """
    module = sys._getframe(1).f_globals.get("__name__", "__main__")  # noqa: SLF001  there is no function to ask
    try:
        made = make_budget(
            name,
            per=per,
            actions=actions,
            usd=usd,
            tokens=tokens,
            calls=calls,
            on_exhausted=on_exhausted,
            only_for=only_for,
            instead_of=instead_of,
            version=version,
        )
    except InvalidBudget as error:
        raise InvalidBudget(error.where, f"{error.problem} (budget {name!r} in {module})") from error
    other = _budgets.get(made.name)
    if other is not None and other.module != module:
        raise InvalidBudget("name", f"{name!r} is declared twice: in {other.module} and in {module}")
    _budgets[made.name] = DeclaredBudget(made, module)


def declared_budgets() -> Mapping[str, DeclaredBudget]:
    """Return every budget that modules imported so far declare, by name."""
    return MappingProxyType(_budgets)

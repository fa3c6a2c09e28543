"""Budgets in words and numbers: what one is, whose share of it a job spends, and what is left. Reads no ledger."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_UP, Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Any, Literal, cast

from producer.canonical import canonical_json, shown
from producer.envelope import NAME_LIMIT
from producer.errors import InvalidBudget

Per = Literal["action", "request", "agent", "user", "tenant", "day"]
OnExhausted = Literal["hold", "refuse"]

PER: tuple[Per, ...] = ("action", "request", "agent", "user", "tenant", "day")
ON_EXHAUSTED: tuple[OnExhausted, ...] = ("hold", "refuse")
UNITS = ("usd", "tokens", "calls")
# What the ledger's columns hold: eighteen digits, nine of them behind the point.
MOST_USD = Decimal(10**9) - 1
SMALLEST_USD = Decimal(1).scaleb(-9)
MOST = 2**53  # what any reader of JSON reads as it was written
# These names are one tenant's: two tenants' jobs of one user's name do not share a budget.
OF_A_TENANT = frozenset({"request", "agent", "user"})
ONLY_FOR = ("tenant", "agent", "user")

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_PATTERN = re.compile(r"[a-z0-9_.*]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """The most that may be spent of each; None is without end.

    Attributes:
        usd: US dollars.
        tokens: A model's, in and out together.
        calls: Attempts, and what they reserve beside.
    """

    usd: Decimal | None
    tokens: int | None
    calls: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A budget as it is declared.

    Attributes:
        name: Unique.
        per: What has a share of its own: any of ``action``, ``request``, ``agent``, ``user``, ``tenant``, ``day``.
        actions: Whose jobs it is for: names, or patterns such as ``llm.*``. None is every action's calls, and the
            money and the tokens of those that declare a cost.
        ceilings: Of each share; at least one is not None.
        on_exhausted: What becomes of a job for which too little is left: ``hold`` has it wait until there is more,
            ``refuse`` has it fail.
        only_for: Whose jobs alone are its concern, such as ``{"tenant": "acme"}``: any of ``tenant``, ``agent`` and
            ``user``, all of which have to be so. None is everybody's.
        instead_of: The budget in whose place it is, for those jobs. None is beside all others.
        version: A worker of older code does not undo a newer one's word.
    """

    name: str
    per: tuple[Per, ...]
    actions: tuple[str, ...] | None
    ceilings: Ceilings
    on_exhausted: OnExhausted
    only_for: Mapping[str, str] | None = None
    instead_of: str | None = None
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRecord(Budget):
    """A budget as the ledger has it. Its `ceilings` are those in force.

    Attributes:
        declared: The ceilings that it was declared with.
        declared_by: ``code`` | ``person``.
        declared_in: The module that declares it; None where a person did.
        created_at: Since when it is there.
        set_at: When an operator last set other ceilings; None where those declared are in force.
        set_by: Who that was.
        set_why: The reason that he gave.
    """

    declared: Ceilings
    declared_by: Literal["code", "person"]
    declared_in: str | None
    created_at: datetime
    set_at: datetime | None
    set_by: str | None
    set_why: str | None

    def covers(self, action: str) -> bool:
        """Whether the action's jobs are its concern."""
        return self.actions is None or any(fnmatchcase(action, pattern) for pattern in self.actions)

    def concerns(self, facts: Mapping[str, str | None]) -> bool:
        """Whether the job is one of those that it is for; `facts` as `key_of` takes them."""
        return all(facts[name] == value for name, value in (self.only_for or {}).items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """How one unit of a share stands. Money is Decimal, the others are whole.

    Attributes:
        ceiling: None where there is none.
        spent: By attempts that ended.
        reserved: By attempts that have not, or of which nobody knows what they spent.
        unknown: The latter's part of `reserved`: their workers died, or their outcomes never came.
    """

    ceiling: Decimal | int | None
    spent: Decimal | int
    reserved: Decimal | int
    unknown: Decimal | int

    @property
    def left(self) -> Decimal | int | None:
        """What may still be reserved; less than 0 where attempts spent more than they had reserved."""
        return None if self.ceiling is None else self.ceiling - self.spent - self.reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStanding:
    """How a share of a budget stands.

    Attributes:
        budget: Whose share it is.
        key: What it is the share of, such as ``{"tenant": "acme"}``; None where nothing was ever reserved of it.
        day: The day in UTC; None where the budget is no day's.
        ends_at: When that is over.
        waiting: This tenant's jobs that wait for the budget, whatever their share.
    """

    budget: BudgetRecord
    key: Mapping[str, str | None] | None
    day: str | None
    ends_at: datetime | None
    usd: Amounts
    tokens: Amounts
    calls: Amounts
    waiting: int


def make_budget(
    name: Any,
    *,
    per: Any,
    actions: Any = None,
    usd: Any = None,
    tokens: Any = None,
    calls: Any = None,
    on_exhausted: Any = "hold",
    only_for: Any = None,
    instead_of: Any = None,
    version: Any = 1,
) -> Budget:
    """Check a budget. Arguments as `Budget` has them; `usd` may be text, a whole number or a float.

    Raises:
        InvalidBudget: Naming the field, what is wrong with it and what to do.
    """
    if on_exhausted not in ON_EXHAUSTED:
        raise InvalidBudget("on_exhausted", f"{shown(on_exhausted)} is not {', '.join(ON_EXHAUSTED)}")
    if type(version) is not int or version < 1:
        raise InvalidBudget("version", f"{shown(version)} is not a whole number, 1 or more")
    ceilings = make_ceilings(usd=usd, tokens=tokens, calls=calls)
    if ceilings == Ceilings(usd=None, tokens=None, calls=None):
        raise InvalidBudget("usd", "is missing, and so are tokens and calls: a budget has one ceiling at least")
    return Budget(
        name=check_budget_name(name),
        per=_per(per),
        actions=_actions(actions),
        ceilings=ceilings,
        on_exhausted=on_exhausted,
        only_for=_only_for(only_for),
        instead_of=_instead_of(instead_of, name, only_for),
        version=version,
    )


def in_force_for(budgets: Iterable[BudgetRecord], facts: Mapping[str, str | None]) -> list[BudgetRecord]:
    """Return those of the budgets that a job spends of: its own, and the general ones in whose place none of them is.

    Args:
        budgets: Those that cover the job's action.
        facts: The job's, as `key_of` takes them.
    """
    concerned = [budget for budget in budgets if budget.concerns(facts)]
    replaced = {budget.instead_of for budget in concerned}
    return [budget for budget in concerned if budget.name not in replaced]


def make_ceilings(*, usd: Any, tokens: Any, calls: Any) -> Ceilings:
    """Check ceilings, each of which may be None.

    Raises:
        InvalidBudget: Naming the one that cannot be.
    """
    return Ceilings(
        usd=None if usd is None else dollars(usd, "usd"),
        tokens=_whole(tokens, "tokens"),
        calls=_whole(calls, "calls"),
    )


def dollars(value: Any, where: str) -> Decimal:
    """Return an amount of money as a Decimal, rounded up to the nine digits that the ledger keeps.

    Raises:
        InvalidBudget: If it is none, or is negative.
    """
    try:
        # A float as it is written: 0.1 means a tenth, not the nearest that a float can hold.
        amount = Decimal(str(value)) if isinstance(value, (str, int, float, Decimal)) else None
    except InvalidOperation:
        amount = None
    if amount is None or isinstance(value, bool) or not amount.is_finite() or not 0 <= amount <= MOST_USD:
        raise InvalidBudget(where, f"{shown(value)} is not an amount of US dollars, such as '12.50'")
    return amount.quantize(SMALLEST_USD, ROUND_UP)


def check_budget_name(name: Any) -> str:
    """Return a budget's name.

    Raises:
        InvalidBudget: If it cannot be one.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidBudget(
            "name", f"{shown(name)} is not a budget's name; write up to 100 of a-z, 0-9, . _ and -, as tenant-day"
        )
    return name


def key_of(per: Iterable[Per], facts: Mapping[str, str | None]) -> str:
    """Return whose share of a budget a job spends, as canonical JSON; the day is not in it.

    Args:
        per: The budget's.
        facts: The job's ``action``, ``request``, ``agent``, ``user`` and ``tenant``. What the request did not say is
            None, and all those that did not say it have one share between them.
    """
    names = set(per) - {"day"}
    if names & OF_A_TENANT:
        names.add("tenant")
    return canonical_json({name: facts[name] for name in names}, where="key")


def tenant_of(per: Iterable[Per], tenant: str) -> str | None:
    """Return whose alone a share is; None where several tenants have it."""
    return tenant if (OF_A_TENANT | {"tenant"}) & set(per) else None


def _per(per: Any) -> tuple[Per, ...]:
    named = [per] if isinstance(per, str) else list(per) if isinstance(per, Iterable) else [per]
    for each in named:
        if each not in PER:
            raise InvalidBudget("per", f"{shown(each)} is not {', '.join(PER)}")
    return cast("tuple[Per, ...]", tuple(name for name in PER if name in named))


def _actions(actions: Any) -> tuple[str, ...] | None:
    if actions is None:
        return None
    patterns = [actions] if isinstance(actions, str) else list(actions) if isinstance(actions, Iterable) else [actions]
    for each in patterns:
        if not isinstance(each, str) or not _PATTERN.fullmatch(each):
            raise InvalidBudget("actions", f"{shown(each)} is no action's name, and no pattern such as 'llm.*'")
    if not patterns:
        raise InvalidBudget("actions", "are none; leave them out for a budget of every action's")
    return tuple(patterns)


def _only_for(only_for: Any) -> dict[str, str] | None:
    if only_for is None:
        return None
    if not isinstance(only_for, Mapping) or not only_for:
        raise InvalidBudget("only_for", f"{shown(only_for)} names nobody; write it as {{'tenant': 'acme'}}")
    for name, value in only_for.items():
        if name not in ONLY_FOR:
            raise InvalidBudget("only_for", f"{shown(name)} is not {', '.join(ONLY_FOR)}")
        if not isinstance(value, str) or not 1 <= len(value) <= NAME_LIMIT:
            raise InvalidBudget(
                "only_for", f"{shown(value)} is no {name}; write a name of 1 to {NAME_LIMIT} characters"
            )
    return {name: only_for[name] for name in ONLY_FOR if name in only_for}


def _instead_of(instead_of: Any, name: Any, only_for: Any) -> str | None:
    if instead_of is None:
        return None
    if only_for is None:
        raise InvalidBudget(
            "instead_of", f"{shown(instead_of)} would be for nobody any more; say only_for= whom this is"
        )
    if instead_of == name:
        raise InvalidBudget("instead_of", f"{shown(instead_of)} is this budget's own name")
    try:
        return check_budget_name(instead_of)
    except InvalidBudget as error:
        raise InvalidBudget("instead_of", error.problem) from error


def _whole(value: Any, where: str) -> int | None:
    if value is None or (type(value) is int and 0 <= value <= MOST):
        return value
    raise InvalidBudget(where, f"{shown(value)} is not a whole number, 0 or more")

"""The budgets as operators have them: how each share stands, and ceilings that override those that code declares.

They are the whole installation's, every tenant's. What an operator changes is kept at once: ceilings are read where
attempts reserve. A budget that is new is kept by every worker within five seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine import Connection

from producer.acting import Actor, actor, check_reason
from producer.budget_words import (
    UNITS,
    BudgetRecord,
    BudgetStanding,
    Ceilings,
    OnExhausted,
    check_budget_name,
    make_budget,
    make_ceilings,
)
from producer.canonical import shown
from producer.errors import BudgetNotFound, InvalidBudget
from producer.ledger import budgets as ledger
from producer.ledger.acts import act_of, on_record

if TYPE_CHECKING:
    from producer.settings import Settings

MOST_LISTED = 10_000


class Kept:
    """A ceiling that stays as it is; None takes one away."""

    def __repr__(self) -> str:
        return "KEPT"


KEPT: Final = Kept()
Read = Callable[[Callable[[Connection], Any]], Any]


class Budgets:
    """What ``producer.budgets`` is. Safe to share between threads; calling it lists how the shares stand."""

    def __init__(self, settings: Settings, read: Read) -> None:
        """Come from a Producer, with its connections."""
        self._settings, self._read = settings, read

    def __call__(
        self, name: str | None = None, *, everybody: bool = False, limit: int = 1_000
    ) -> Sequence[BudgetStanding]:
        """Return how shares stand: this tenant's, and those that several tenants have; of days, today's.

        Args:
            name: Of one budget; None is of all.
            everybody: Of every tenant.
            limit: The most of them, 1 to 10,000; of each budget those first of which most is spent and reserved.

        Raises:
            BudgetNotFound: If there is none of that name.
        """
        if name is not None:
            self.get(name)
        if type(limit) is not int or not 1 <= limit <= MOST_LISTED:
            raise InvalidBudget("limit", f"{shown(limit)} is not from 1 to {MOST_LISTED:,}")
        tenant = self._settings.tenant
        found: list[BudgetStanding] = self._read(
            lambda c: ledger.standings(c, tenant, name=name, everybody=everybody, limit=limit)
        )
        return found

    def list(self) -> Sequence[BudgetRecord]:
        """Return every budget, by name."""
        found: Sequence[BudgetRecord] = self._read(ledger.budgets)
        return found

    def get(self, name: str) -> BudgetRecord:
        """Return one budget.

        Raises:
            BudgetNotFound: If there is none of that name; says what was probably meant.
        """
        check_budget_name(name)
        record: BudgetRecord | None = self._read(lambda c: ledger.budget_by_name(c, name))
        if record is None:
            names = [each.name for each in self.list()]
            near = get_close_matches(name, names, n=1)
            there = f"; there are {', '.join(names)}" if names else ""
            raise BudgetNotFound(
                f"there is no budget {shown(name)}" + (f"; did you mean {near[0]!r}?" if near else there)
            )
        return record

    def add(
        self,
        name: str,
        *,
        per: str | Iterable[str],
        reason: str,
        actions: str | Iterable[str] | None = None,
        usd: str | float | Decimal | None = None,
        tokens: int | None = None,
        calls: int | None = None,
        on_exhausted: OnExhausted = "hold",
        only_for: Mapping[str, str] | None = None,
        instead_of: str | None = None,
        who: str | None = None,
    ) -> BudgetRecord:
        """Add a budget, by a person's word; every worker keeps it within five seconds.

        Arguments as ``tasks.budget`` has them.

        Raises:
            InvalidBudget: If it cannot be kept, or there is one of that name.
        """
        said_by, why = actor(who), _reason(reason)
        budget = make_budget(
            name,
            per=per,
            actions=actions,
            usd=usd,
            tokens=tokens,
            calls=calls,
            on_exhausted=on_exhausted,
            only_for=only_for,
            instead_of=instead_of,
        )
        given = {unit: getattr(budget.ceilings, unit) for unit in UNITS}

        def add(connection: Connection) -> bool:
            if not ledger.add(connection, budget):
                return False
            return ledger.set_ceilings(connection, budget.name, given, who=said_by.who, reason=why)

        facts = {"per": budget.per, "actions": budget.actions, "only_for": only_for, "instead_of": instead_of}
        if not self._act(said_by, "add budget", name, add, reason=why, **facts, **given):
            raise InvalidBudget("name", f"{shown(name)} is there already; set its ceilings instead")
        return self.get(name)

    def set(
        self,
        name: str,
        *,
        reason: str,
        usd: str | float | Decimal | Kept | None = KEPT,
        tokens: int | Kept | None = KEPT,
        calls: int | Kept | None = KEPT,
        who: str | None = None,
    ) -> BudgetRecord:
        """Put other ceilings in force, at once and until they are reset; whoever waits for the budget tries anew.

        Args:
            name: The budget's.
            reason: Why; kept with it.
            usd: None takes the ceiling away; what is not given stays as it is, as for the others.
            tokens: As above.
            calls: As above.
            who: By default the user of this process.

        Raises:
            BudgetNotFound: If there is none of that name.
            InvalidBudget: If a ceiling cannot be, none is given, or none would be left.
        """
        given = {unit: value for unit, value in zip(UNITS, (usd, tokens, calls), strict=True) if value is not KEPT}
        if not given:
            raise InvalidBudget("usd", "is missing, and so are tokens and calls: say which ceiling to set")
        checked = make_ceilings(**dict.fromkeys(UNITS) | given)
        said_by, why = actor(who), _reason(reason)
        before = self.get(name)
        left = {unit: getattr(checked if unit in given else before.ceilings, unit) for unit in UNITS}
        if Ceilings(**left) == Ceilings(usd=None, tokens=None, calls=None):
            raise InvalidBudget("usd", f"{name!r} would have no ceiling; remove it instead")
        values = {unit: getattr(checked, unit) for unit in given}
        self._act(
            said_by,
            "set budget",
            name,
            lambda c: ledger.set_ceilings(c, name, values, who=said_by.who, reason=why),
            reason=why,
            **values,
        )
        self._read(lambda c: ledger.wake(c, name))
        return self.get(name)

    def reset(self, name: str, *, reason: str | None = None, who: str | None = None) -> BudgetRecord:
        """Put the declared ceilings in force again; whoever waits for the budget tries anew.

        Raises:
            BudgetNotFound: If there is none of that name.
        """
        self.get(name)
        self._act(actor(who), "reset budget", name, lambda c: ledger.reset_ceilings(c, name), reason=reason)
        self._read(lambda c: ledger.wake(c, name))
        return self.get(name)

    def remove(self, name: str, *, reason: str | None = None, who: str | None = None) -> None:
        """Remove a budget; what was spent stays on record. One that code declares is back when a worker starts.

        Raises:
            BudgetNotFound: If there is none of that name.
        """
        self.get(name)
        self._act(actor(who), "remove budget", name, lambda c: ledger.remove(c, name), reason=reason)
        self._read(lambda c: ledger.wake(c, name))

    def _act(
        self,
        said_by: Actor,
        word: str,
        name: str,
        work: Callable[[Connection], bool],
        *,
        reason: str | None,
        **facts: Any,
    ) -> bool:
        """Do what somebody wants, and put it on record, in one transaction."""
        check_reason(reason)
        act = act_of(said_by, self._settings.tenant, word, name, reason=reason, **facts)
        return bool(self._read(lambda c: on_record(c, act, lambda: work(c))))


def _reason(reason: Any) -> str:
    if not isinstance(reason, str) or not reason.strip():
        raise InvalidBudget("reason", "is missing: say why, for whoever finds the budget so")
    return reason

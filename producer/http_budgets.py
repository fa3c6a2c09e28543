"""`HttpProducer.budgets`: what `Producer.budgets` is, over HTTP. Who says so is the holder of the key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from producer.budget_words import Amounts, BudgetRecord, BudgetStanding, Ceilings, OnExhausted
from producer.budgets import KEPT, Kept
from producer.errors import BudgetNotFound, InvalidBudget, InvalidRequest, JobNotFound
from producer.records import record_of

Ask = Callable[..., Any]
Money = str | float | Decimal


class HttpBudgets:
    """Methods and errors are those of `producer.budgets.Budgets`, less who says so."""

    def __init__(self, ask: Ask) -> None:
        """Come from an HttpProducer, which asks."""
        self._asking = ask

    def __call__(
        self, name: str | None = None, *, everybody: bool = False, limit: int = 1_000
    ) -> Sequence[BudgetStanding]:
        """Return how shares stand: this tenant's, and those that several tenants have; of days, today's."""
        query = {"name": name, "everybody": everybody or None, "limit": limit}
        return [_standing(each) for each in self._ask("GET", "/v1/budget-shares", query=query)["shares"]]

    def list(self) -> Sequence[BudgetRecord]:
        """Return every budget, by name."""
        return [_record(each) for each in self._ask("GET", "/v1/budgets")["budgets"]]

    def get(self, name: str) -> BudgetRecord:
        """Return one budget."""
        return _record(self._ask("GET", _path(name)))

    def add(
        self,
        name: str,
        *,
        per: str | Iterable[str],
        reason: str,
        actions: str | Iterable[str] | None = None,
        usd: Money | None = None,
        tokens: int | None = None,
        calls: int | None = None,
        on_exhausted: OnExhausted = "hold",
        only_for: Mapping[str, str] | None = None,
        instead_of: str | None = None,
    ) -> BudgetRecord:
        """Add a budget; every worker keeps it within five seconds."""
        said = {"name": name, "per": _several(per), "actions": _several(actions), "on_exhausted": on_exhausted}
        said |= {"only_for": only_for, "instead_of": instead_of}
        said |= {"reason": reason, "usd": _plain(usd), "tokens": tokens, "calls": calls}
        return _record(self._ask("POST", "/v1/budgets", said))

    def set(
        self,
        name: str,
        *,
        reason: str,
        usd: Money | Kept | None = KEPT,
        tokens: int | Kept | None = KEPT,
        calls: int | Kept | None = KEPT,
    ) -> BudgetRecord:
        """Put other ceilings in force, at once and until they are reset."""
        given = {unit: _plain(value) for unit, value in {"usd": usd, "tokens": tokens, "calls": calls}.items()}
        said = {unit: value for unit, value in given.items() if value is not KEPT}
        return _record(self._ask("POST", f"{_path(name)}/set", said | {"reason": reason}))

    def reset(self, name: str, *, reason: str | None = None) -> BudgetRecord:
        """Put the declared ceilings in force again."""
        return _record(self._ask("POST", f"{_path(name)}/reset", {"reason": reason}))

    def remove(self, name: str, *, reason: str | None = None) -> None:
        """Remove a budget; what was spent stays on record."""
        self._ask("DELETE", _path(name), query={"reason": reason}, repeatable=False)

    def _ask(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        try:
            return self._asking(method, path, body, **{"repeatable": method == "GET"} | more)
        except JobNotFound as error:
            raise BudgetNotFound(str(error)) from None
        except InvalidRequest as error:
            raise InvalidBudget(error.where, error.problem) from None


def _path(name: str) -> str:
    return f"/v1/budgets/{quote(name, safe='')}"


def _several(words: str | Iterable[str] | None) -> Any:
    return None if words is None else [words] if isinstance(words, str) else [*words]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Decimal) else value


def _record(told: Mapping[str, Any]) -> BudgetRecord:
    ceilings, declared = (record_of(Ceilings, told[name]) for name in ("ceilings", "declared"))
    actions = None if told["actions"] is None else tuple(told["actions"])
    return record_of(BudgetRecord, told, per=tuple(told["per"]), actions=actions, ceilings=ceilings, declared=declared)


def _standing(told: Mapping[str, Any]) -> BudgetStanding:
    money = {name: None if value is None else Decimal(value) for name, value in told["usd"].items()}
    units = {"usd": record_of(Amounts, money)} | {unit: record_of(Amounts, told[unit]) for unit in ("tokens", "calls")}
    return record_of(BudgetStanding, told, budget=_record(told["budget"]), **units)

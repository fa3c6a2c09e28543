"""What an attempt asks of which budgets, what follows where one has too little left, and what it spent. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from producer.budget_words import UNITS, BudgetRecord, in_force_for, key_of, tenant_of
from tasks import Cost
from tasks._context import Usage
from tasks._outcomes import Failure, Outcome
from worker.budget_statements import Reservation, Spent

# What others have reserved may come free with each attempt that ends.
RESERVED_SECONDS = 30.0
# What is spent comes back with an operator's word, which wakes who waits; this is for who missed it.
SPENT_SECONDS = 3_600.0
# A day's end is everybody's: they come back over so long.
SPREAD_SECONDS = 60.0

EXHAUSTED = "budget exhausted"
RESERVED = "budget reserved"
TOO_MUCH = "more than its budget"
UNPRICED = "price unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """A budget for whose sake an attempt does not begin.

    Attributes:
        budget: Its name.
        why: The rule, for the event.
        refuses: Whether the job ends with that; else it waits.
        delay: Seconds until it is worth asking again.
        facts: The share, and how it stands: for the event, as plain JSON.
    """

    budget: str
    why: str
    refuses: bool
    delay: float
    facts: Mapping[str, Any]

    @property
    def message(self) -> str:
        """The shortage in a sentence."""
        share = " ".join(f"{name}={value}" for name, value in self.facts.get("key", {}).items())
        short = "; ".join(
            f"{unit}: {told['asked']} asked, {told['left']} left of {told['ceiling']}"
            for unit in UNITS
            if (told := self.facts.get(unit)) is not None
        )
        said = " ".join(part for part in (self.budget, share, self.facts.get("day")) if part)
        return f"{self.why} ({said}){': ' if short else ''}{short}"


def reservations(
    budgets: Iterable[BudgetRecord], facts: Mapping[str, str | None], cost: Cost | None
) -> list[Reservation] | Shortage:
    """Return what an attempt has to reserve; or the budget that gives nothing to what nobody knows the price of.

    Args:
        budgets: Those that cover the action.
        facts: The job's: see `key_of`.
        cost: What the attempt may cost at most; None where its action declares none.
    """
    asked = []
    for budget in in_force_for(budgets, facts):
        most, named = budget.ceilings, budget.actions is not None
        if cost is None and not named and most.calls is None:
            continue
        wanted = Cost(usd=None, tokens=None) if cost is None else cost
        binds = cost is not None or named
        unknown = [
            unit for unit in ("usd", "tokens") if getattr(most, unit) is not None and getattr(wanted, unit) is None
        ]
        if binds and unknown:
            return _unpriced(budget, facts, unknown[0])
        tenant = facts["tenant"] or ""
        asked.append(
            Reservation(
                budget=budget.name,
                key=key_of(budget.per, facts),
                tenant=tenant_of(budget.per, tenant),
                daily="day" in budget.per,
                usd=wanted.usd,
                tokens=wanted.tokens,
                calls=wanted.calls,
            )
        )
    return asked


def shortage(rows: Sequence[Any], *, jitter: float) -> Shortage | None:
    """Return the budget for whose sake an attempt has to wait longest, or fails; None where all have room by now.

    Args:
        rows: How each budget stands that it asked, as `worker.budget_statements.room` reads it.
        jitter: In [0, 1); where in its bounds a delay falls.
    """
    found = [each for each in (_short(row, jitter=jitter) for row in rows) if each is not None]
    return max(found, key=lambda each: (each.refuses, each.delay), default=None)


def spent(outcome: Outcome | None, usage: Usage) -> Spent:
    """Return what an attempt used, for the reservations that it made.

    Where certainly nothing was asked of anybody, or it was refused, that is what was reported: nothing, mostly. Where
    nobody knows what happened, it is what was reserved at least. Else it is what was reported, and what was reserved
    of which nothing was reported.

    Args:
        outcome: What the attempt brought; None where it was not performed.
        usage: What it reported.
    """
    tokens = None if usage.tokens_in is usage.tokens_out is None else (usage.tokens_in or 0) + (usage.tokens_out or 0)
    reported = not (tokens is None and usage.cost_usd is None)
    nothing = outcome is None or (isinstance(outcome, Failure) and outcome.effect != "unknown")
    if nothing and not reported:
        return Spent(usd=Decimal(0), tokens=0, calls=0, at_least=False)
    uncertain = isinstance(outcome, Failure) and outcome.effect == "unknown"
    return Spent(usd=usage.cost_usd, tokens=tokens, calls=None, at_least=uncertain)


def _unpriced(budget: BudgetRecord, facts: Mapping[str, str | None], unit: str) -> Shortage:
    key = json.loads(key_of(budget.per, facts))
    return Shortage(
        budget=budget.name,
        why=UNPRICED,
        refuses=budget.on_exhausted == "refuse",
        delay=SPENT_SECONDS,
        facts={"budget": budget.name, "key": key, "unknown": unit},
    )


def _short(row: Any, *, jitter: float) -> Shortage | None:
    units = {unit: told for unit in UNITS if (told := _unit(row, unit)) is not None}
    if not units:
        return None
    facts = {"budget": row.name, "key": json.loads(row.key), "day": row.day} | {
        unit: {name: told[name] for name in ("ceiling", "spent", "reserved", "asked", "left")}
        for unit, told in units.items()
    }
    facts = {name: fact for name, fact in facts.items() if fact is not None}
    refuses = row.on_exhausted == "refuse"
    if any(told["asked"] > told["ceiling"] for told in units.values()):
        # It never will be enough, however long it waits; whoever raises the ceiling may ask for it anew.
        return Shortage(budget=row.name, why=TOO_MUCH, refuses=True, delay=0.0, facts=_as_text(facts))
    if not any(told["gone"] + told["asked"] > told["ceiling"] for told in units.values()):
        delay = RESERVED_SECONDS * (1 + jitter)
        return Shortage(budget=row.name, why=RESERVED, refuses=False, delay=round(delay, 3), facts=_as_text(facts))
    delay = SPENT_SECONDS * (1 + jitter / 4) if row.ends_in is None else float(row.ends_in) + SPREAD_SECONDS * jitter
    return Shortage(
        budget=row.name, why=EXHAUSTED, refuses=refuses, delay=round(max(delay, 1.0), 3), facts=_as_text(facts)
    )


def _unit(row: Any, unit: str) -> dict[str, Any] | None:
    """Return how a unit stands that has too little left; None where it has enough, or no ceiling."""
    most, asked = getattr(row, f"most_{unit}"), getattr(row, f"asked_{unit}")
    spent, reserved, unknown = (getattr(row, f"{word}_{unit}") for word in ("spent", "reserved", "unknown"))
    if most is None or asked is None or spent + reserved + asked <= most:
        return None
    return {
        "ceiling": most,
        "spent": spent,
        "reserved": reserved,
        "asked": asked,
        "left": most - spent - reserved,
        "gone": spent + unknown,
    }


def _as_text(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as plain JSON: money as text, without zeros that say nothing."""
    plain: dict[str, Any] = json.loads(json.dumps(facts, default=lambda amount: f"{amount.normalize():f}"))
    return plain

"""Budgets as people read them on a terminal, and as plain JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from producer.budget_words import UNITS, Amounts, BudgetRecord, BudgetStanding, Ceilings
from producer.render import MOMENT, short


def budget_facts(record: BudgetRecord) -> dict[str, Any]:
    """Return a budget as plain JSON."""
    return asdict(record)


def standing_facts(standing: BudgetStanding) -> dict[str, Any]:
    """Return how a share stands as plain JSON; money as text."""
    record = standing.budget
    units = {unit: asdict(getattr(standing, unit)) | {"left": getattr(standing, unit).left} for unit in UNITS}
    return {
        "budget": record.name,
        "per": record.per,
        "actions": record.actions,
        "on_exhausted": record.on_exhausted,
        "key": standing.key,
        "day": standing.day,
        "ends_at": standing.ends_at,
        "waiting": standing.waiting,
        "set_by": record.set_by,
        "set_at": record.set_at,
        **units,
    }


def standings(found: Sequence[BudgetStanding]) -> RenderableType:
    """Draw a table of shares, a line for each unit that has a ceiling."""
    table = Table(box=None, pad_edge=False)
    for name in ("budget", "share", "day", "of", "spent", "reserved", "unknown", "left", "ceiling", "waiting jobs"):
        table.add_column(name, no_wrap=name not in ("budget", "share"))
    for standing in found:
        for unit in UNITS:
            amounts: Amounts = getattr(standing, unit)
            if amounts.ceiling is not None:
                table.add_row(*_line(standing, unit, amounts))
    return table


def budget(record: BudgetRecord) -> RenderableType:
    """Draw one budget and its ceilings."""
    rows = Table(box=None, pad_edge=False, show_header=False)
    rows.add_row("budget", Text(record.name))
    rows.add_row("per", ", ".join(record.per) or "everything together")
    rows.add_row("actions", Text("all" if record.actions is None else ", ".join(record.actions)))
    if record.only_for is not None:
        rows.add_row("only for", Text(", ".join(f"{name} {value}" for name, value in record.only_for.items())))
    if record.instead_of is not None:
        rows.add_row("instead of", Text(record.instead_of))
    rows.add_row("ceilings", _ceilings(record.ceilings))
    if record.set_at is not None:
        rows.add_row("declared", _ceilings(record.declared))
        rows.add_row("set", Text(f"{record.set_at:{MOMENT}} by {record.set_by}: {record.set_why}"))
    rows.add_row("on exhausted", record.on_exhausted)
    return rows


def _line(standing: BudgetStanding, unit: str, amounts: Amounts) -> list[str | Text]:
    key = " ".join(f"{name}={value}" for name, value in (standing.key or {}).items())
    left = amounts.left
    style = "bold red" if left is not None and left <= 0 else ""
    return [
        Text(short(standing.budget.name)),
        Text(short(key)),
        standing.day or "",
        unit,
        _plain(amounts.spent),
        _plain(amounts.reserved),
        _plain(amounts.unknown) if amounts.unknown else "",
        Text(_plain(left), style),
        _plain(amounts.ceiling),
        str(standing.waiting) if standing.waiting else "",
    ]


def _ceilings(most: Ceilings) -> str:
    told = [f"{_plain(value)} {unit}" for unit in UNITS if (value := getattr(most, unit)) is not None]
    return ", ".join(told)


def _plain(amount: Decimal | int | None) -> str:
    if amount is None:
        return ""
    if isinstance(amount, int):
        return f"{amount:,}"
    shown = f"{amount.normalize():,f}"
    whole, point, rest = shown.partition(".")
    return f"{whole}.{rest.ljust(2, '0')}" if point else f"{whole}.00"

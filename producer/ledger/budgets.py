"""Budgets in the ledger: declaring them, an operator's word on one, and how their shares stand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection, Row

from producer.budget_words import UNITS, Amounts, Budget, BudgetRecord, BudgetStanding, Ceilings
from producer.ledger.engine import WAKE_CHANNEL
from producer.ledger.states import State

# Jobs woken by one statement; it holds their rows for a few milliseconds.
BATCH = 1_000
FIRST = UUID(int=0)

IN_FORCE = ", ".join(
    f"CASE WHEN {{b}}.set_at IS NULL THEN {{b}}.{u} ELSE {{b}}.set_{u} END AS {{most}}{u}" for u in UNITS
)
COLUMNS = f"""
  b.name, b.per, b.actions, b.usd, b.tokens, b.calls, b.on_exhausted, b.version, b.declared_by, b.declared_in,
  b.only_for, b.instead_of, b.created_at, b.set_at, b.set_by, b.set_why, {IN_FORCE.format(b="b", most="most_")}
"""
WRITTEN = "per, actions, usd, tokens, calls, on_exhausted, only_for, instead_of, version, declared_in"
INSERT = f"""
INSERT INTO budgets (name, declared_by, {WRITTEN})
SELECT name, declared_by, {WRITTEN} FROM json_to_recordset(CAST(:declared AS json)) AS d(name text, declared_by text,
  per text[], actions text[], usd numeric, tokens bigint, calls bigint, on_exhausted text, only_for json,
  instead_of text, version int, declared_in text)
ORDER BY name
"""
ADD = text(f"{INSERT} ON CONFLICT (name) DO NOTHING")
# The row as it is stands on the left; a person's, and a newer version's, is left alone, and so is an operator's word.
DECLARE = text(f"""
{INSERT}
ON CONFLICT (name) DO UPDATE SET ({WRITTEN}) = ROW({", ".join(f"excluded.{n}" for n in WRITTEN.split(", "))})
WHERE budgets.declared_by = 'code' AND budgets.version <= excluded.version
RETURNING name
""")
ALL = text(f"SELECT {COLUMNS} FROM budgets b ORDER BY b.name")
BY_NAME = text(f"SELECT {COLUMNS} FROM budgets b WHERE b.name = :name")

# What is not asked for stays as it is in force; `given` says what is asked for, since NULL may be.
SET = text(f"""
UPDATE budgets b SET set_at = clock_timestamp(), set_by = :who, set_why = :reason,
  {
    ", ".join(
        f"set_{u} = CASE WHEN '{u}' = ANY(:given) THEN CAST(:{u} AS {kind})"
        f" WHEN b.set_at IS NULL THEN b.{u} ELSE b.set_{u} END"
        for u, kind in zip(UNITS, ("numeric", "bigint", "bigint"), strict=True)
    )
}
WHERE b.name = :name
""")
RESET = text("""
UPDATE budgets SET set_usd = NULL, set_tokens = NULL, set_calls = NULL, set_at = NULL, set_by = NULL, set_why = NULL
WHERE name = :name
""")
REMOVE = text("DELETE FROM budgets WHERE name = :name")

# Whoever waits for a budget whose ceilings were changed tries anew. Who is locked is being moved already.
WAKE = text("""
WITH parked AS (
  SELECT id FROM jobs WHERE waiting_for = 'budget' AND waiting_on = :name AND id > :after
  ORDER BY id LIMIT :batch FOR UPDATE SKIP LOCKED
), woken AS (
  UPDATE jobs j SET due_at = statement_timestamp(), ring_at = statement_timestamp() FROM parked p WHERE j.id = p.id
)
SELECT id FROM parked ORDER BY id
""")
NOTIFY = text("SELECT pg_notify(:channel, '')")

# Reserved by an attempt that has its job no more: its worker died, and nobody knows what it spent.
UNKNOWN = f"""
  SELECT coalesce(sum(r.usd), 0) AS unknown_usd, coalesce(sum(r.tokens), 0) AS unknown_tokens,
    coalesce(sum(r.calls), 0) AS unknown_calls
  FROM budget_reservations r LEFT JOIN jobs j ON j.id = r.job_id AND j.fence = r.fence AND j.state = '{State.RUNNING}'
  WHERE (r.budget, r.key, r.day) = ({{c}}.budget, {{c}}.key, {{c}}.day) AND r.settled_at IS NULL AND j.id IS NULL
"""
STANDINGS = text(f"""
SELECT {COLUMNS}, c.key, c.day, c.ends_at, c.spent_usd, c.spent_tokens, c.spent_calls, c.reserved_usd,
  c.reserved_tokens, c.reserved_calls, u.*, w.waiting
FROM budgets b
LEFT JOIN budget_accounts c ON c.budget = b.name AND (c.ends_at IS NULL OR c.ends_at > clock_timestamp())
  AND (:everybody OR c.tenant IS NULL OR c.tenant = :tenant)
LEFT JOIN LATERAL ({UNKNOWN.format(c="c")}) u ON true
LEFT JOIN LATERAL (
  SELECT count(*) AS waiting FROM jobs j
  WHERE j.waiting_for = 'budget' AND j.waiting_on = b.name AND (:everybody OR j.tenant = :tenant)
) w ON true
WHERE CAST(:name AS text) IS NULL OR b.name = :name
ORDER BY b.name, c.spent_usd + c.reserved_usd DESC NULLS LAST, c.key, c.day LIMIT :limit
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A budget on its way into the ledger."""

    budget: Budget
    declared_by: str
    declared_in: str | None = None


def declare_budgets(connection: Connection, declared: Iterable[Declared]) -> list[str]:
    """Add or change the budgets that code declares; return the names of those that stand as declared now.

    The others are a person's, or a newer version's. An operator's word on one stays. What no code declares any more
    stays, too: a ceiling does not go unless somebody says so.
    """
    return list(connection.execute(DECLARE, {"declared": _as_rows(declared)}).scalars())


def budgets(connection: Connection) -> list[BudgetRecord]:
    """Read every budget, by name."""
    return [record_of(row) for row in connection.execute(ALL)]


def budget_by_name(connection: Connection, name: str) -> BudgetRecord | None:
    """Read one budget."""
    row = connection.execute(BY_NAME, {"name": name}).one_or_none()
    return None if row is None else record_of(row)


def add(connection: Connection, budget: Budget) -> bool:
    """Add a person's budget; return whether there was none of that name."""
    added = connection.execute(ADD, {"declared": _as_rows([Declared(budget=budget, declared_by="person")])})
    return added.rowcount == 1


def set_ceilings(connection: Connection, name: str, given: dict[str, Any], *, who: str, reason: str) -> bool:
    """Put an operator's ceilings in force; return whether there is such a budget.

    Args:
        connection: In a transaction or not.
        name: The budget's.
        given: By unit; what is left out stays as it is, None takes a ceiling away.
        who: Says so.
        reason: Why.
    """
    asked = dict.fromkeys(UNITS) | given
    parameters = {"name": name, "given": list(given), "who": who, "reason": reason, **asked}
    return connection.execute(SET, parameters).rowcount == 1


def reset_ceilings(connection: Connection, name: str) -> bool:
    """Put the declared ceilings in force again; return whether there is such a budget."""
    return connection.execute(RESET, {"name": name}).rowcount == 1


def remove(connection: Connection, name: str) -> bool:
    """Remove a budget; what was spent stays on record. Returns whether there was one."""
    return connection.execute(REMOVE, {"name": name}).rowcount == 1


def wake(connection: Connection, name: str) -> int:
    """Have the jobs that wait for a budget try anew; return how many.

    A crash in here leaves the rest with the times at which they come back by themselves.

    Args:
        connection: In autocommit: each batch is a transaction.
        name: The budget's.
    """
    woken, after = 0, FIRST
    while True:
        ids = list(connection.execute(WAKE, {"name": name, "after": after, "batch": BATCH}).scalars())
        woken += len(ids)
        if len(ids) < BATCH:
            break
        after = ids[-1]
    if woken:
        connection.execute(NOTIFY, {"channel": WAKE_CHANNEL})
    return woken


def standings(
    connection: Connection, tenant: str, *, name: str | None, everybody: bool, limit: int
) -> list[BudgetStanding]:
    """Read how shares of budgets stand, of each budget those first of which most is spent and reserved.

    Args:
        connection: Any.
        tenant: Whose shares, beside those that several tenants have.
        name: Of one budget; None is of all.
        everybody: Of every tenant.
        limit: The most of them.
    """
    asked = {"tenant": tenant, "name": name, "everybody": everybody, "limit": limit}
    return [_standing(row) for row in connection.execute(STANDINGS, asked)]


def record_of(row: Row[Any]) -> BudgetRecord:
    """Make a record of a row of `COLUMNS`."""
    return BudgetRecord(
        name=row.name,
        per=tuple(row.per),
        actions=None if row.actions is None else tuple(row.actions),
        ceilings=Ceilings(usd=row.most_usd, tokens=row.most_tokens, calls=row.most_calls),
        on_exhausted=row.on_exhausted,
        only_for=row.only_for,
        instead_of=row.instead_of,
        version=row.version,
        declared=Ceilings(usd=row.usd, tokens=row.tokens, calls=row.calls),
        declared_by=row.declared_by,
        declared_in=row.declared_in,
        created_at=row.created_at,
        set_at=row.set_at,
        set_by=row.set_by,
        set_why=row.set_why,
    )


def _standing(row: Row[Any]) -> BudgetStanding:
    amounts = {unit: _amounts(row, unit) for unit in UNITS}
    return BudgetStanding(
        budget=record_of(row),
        key=None if row.key is None else json.loads(row.key),
        day=row.day or None,
        ends_at=row.ends_at,
        waiting=row.waiting,
        **amounts,
    )


def _amounts(row: Row[Any], unit: str) -> Amounts:
    kind = Decimal if unit == "usd" else int
    of = row._mapping  # noqa: SLF001  SQLAlchemy's public way to a row's names
    return Amounts(
        ceiling=of[f"most_{unit}"],
        **{word: kind(of[f"{word}_{unit}"] or 0) for word in ("spent", "reserved", "unknown")},
    )


def _as_rows(declared: Iterable[Declared]) -> str:
    return json.dumps([_as_row(each) for each in declared], default=str, ensure_ascii=False)


def _as_row(declared: Declared) -> dict[str, Any]:
    budget, most = declared.budget, declared.budget.ceilings
    return {
        "name": budget.name,
        "per": list(budget.per),
        "actions": None if budget.actions is None else list(budget.actions),
        "usd": most.usd,
        "tokens": most.tokens,
        "calls": most.calls,
        "on_exhausted": budget.on_exhausted,
        "only_for": budget.only_for,
        "instead_of": budget.instead_of,
        "version": budget.version,
        "declared_by": declared.declared_by,
        "declared_in": declared.declared_in,
    }

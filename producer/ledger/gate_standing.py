"""How budgets and approvals stand, every tenant's, for whoever watches the whole: sums, and no names of whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.budget_words import UNITS
from producer.ledger.approvals import ApprovalState
from producer.ledger.budgets import IN_FORCE

# Ids are made in the order of time, so that what was asked for long ago is not even looked at.
ASKED_DAYS, DECIDED_HOURS = 30, 24

SHARES = ", ".join(
    f"coalesce(sum(spent_{u}), 0) AS spent_{u}, coalesce(sum(reserved_{u}), 0) AS reserved_{u},"
    f" coalesce(max(spent_{u} + reserved_{u}), 0) AS taken_{u}"
    for u in UNITS
)
BUDGETS = text(f"""
SELECT b.name, b.per, c.*, {IN_FORCE.format(b="b", most="most_")}
FROM budgets b
LEFT JOIN LATERAL (
  SELECT {SHARES} FROM budget_accounts
  WHERE budget = b.name AND (ends_at IS NULL OR ends_at > clock_timestamp())
) c ON true
ORDER BY b.name
""")
PENDING = text("""
SELECT count(*) AS pending, coalesce(extract(epoch FROM clock_timestamp() - min(requested_at)), 0) AS oldest
FROM approvals WHERE state = 'pending'
""")
# An id begins with the milliseconds at which it was made.
DECIDED = text(f"""
SELECT state, count(*) AS approvals FROM approvals
WHERE id >= CAST(rpad(lpad(to_hex(
    (extract(epoch FROM statement_timestamp() - interval '{ASKED_DAYS} days') * 1000)::bigint
  ), 12, '0'), 32, '0') AS uuid)
  AND decided_at > statement_timestamp() - interval '{DECIDED_HOURS} hours'
GROUP BY state
""")


@dataclass(frozen=True, slots=True)
class BudgetSums:
    """One unit of a budget, over all of its shares that are not over. Money is Decimal, the others are whole.

    Attributes:
        per: What has a share of its own; empty where everybody has one together.
        ceiling: Of each share.
        spent: By attempts that ended, of all shares together.
        reserved: By attempts that have not, or of which nobody knows what they spent.
        left: Of the share of which least is left; the ceiling where none was begun.
    """

    budget: str
    per: tuple[str, ...]
    unit: str
    ceiling: Decimal | int
    spent: Decimal | int
    reserved: Decimal | int
    left: Decimal | int

    @property
    def part_left(self) -> float:
        """What is left as a part of the ceiling; 0 where the ceiling is."""
        return float(self.left / self.ceiling) if self.ceiling else 0.0


@dataclass(frozen=True, slots=True)
class GateStanding:
    """How the gates that jobs wait at stand.

    Attributes:
        budgets: Each unit of each budget that has a ceiling, by name.
        pending: Approvals that nobody has decided.
        oldest_pending: For how many seconds the oldest of these waits.
        decided: Approvals that were decided in the last day, by what was; of those asked for in the last thirty.
    """

    budgets: Sequence[BudgetSums]
    pending: int
    oldest_pending: float
    decided: Mapping[ApprovalState, int]


def gate_standing(connection: Connection) -> GateStanding:
    """Read how everybody's budgets and approvals stand."""
    rows: list[Any] = list(connection.execute(BUDGETS))
    sums = [_sums(row, unit) for row in rows for unit in UNITS if getattr(row, f"most_{unit}") is not None]
    waiting: Any = connection.execute(PENDING).one()
    decided = dict.fromkeys(ApprovalState, 0)
    del decided[ApprovalState.PENDING]
    counted: list[Any] = list(connection.execute(DECIDED))
    decided |= {ApprovalState(row.state): row.approvals for row in counted}
    return GateStanding(sums, waiting.pending, float(waiting.oldest), decided)


def _sums(row: Any, unit: str) -> BudgetSums:
    ceiling = getattr(row, f"most_{unit}")
    spent, reserved, taken = (getattr(row, f"{word}_{unit}") for word in ("spent", "reserved", "taken"))
    return BudgetSums(row.name, tuple(row.per), unit, ceiling, spent, reserved, ceiling - taken)

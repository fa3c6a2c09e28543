"""Pruning what is over of budgets: past days' shares, and what attempts reserved that have settled long since.

What was spent stays on record in the events of its jobs. A share that is no day's is what its ceiling counts, so it
stays. In every worker's relay, without a leader: what somebody else has locked is left to him.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.engine import Connection

from worker.log import log

PRUNE_SECONDS = 60.0
# One holds the relay for a few milliseconds; while there is more, the next is due at its next look.
PRUNE_BATCH = 1_000

OVER = "statement_timestamp() - make_interval(days => :days)"
# By the rows' own places, which hold while they are locked.
SETTLED = text(f"""
DELETE FROM budget_reservations WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM budget_reservations WHERE settled_at < {OVER} ORDER BY settled_at LIMIT :batch FOR UPDATE SKIP LOCKED
))
""")
# Reserved on a day that is over, by attempts of which nobody will hear. Before their shares: whoever settles one after
# all locks it first, too.
UNSETTLED = text(f"""
DELETE FROM budget_reservations WHERE ctid = ANY (ARRAY(
  SELECT r.ctid FROM budget_accounts c JOIN budget_reservations r USING (budget, key, day)
  WHERE c.ends_at < {OVER} AND r.settled_at IS NULL ORDER BY c.ends_at LIMIT :batch FOR UPDATE OF r SKIP LOCKED
))
""")
SHARES = text(f"""
DELETE FROM budget_accounts WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM budget_accounts c WHERE ends_at < {OVER} AND NOT EXISTS (
    SELECT FROM budget_reservations r
    WHERE (r.budget, r.key, r.day) = (c.budget, c.key, c.day) AND r.settled_at IS NULL
  ) ORDER BY ends_at LIMIT :batch FOR UPDATE OF c SKIP LOCKED
))
""")


def prune_budgets(connection: Connection, *, days: int, batch: int = PRUNE_BATCH) -> int:
    """Prune at most so many of each kind that are over for so many days; return of which kind the most, and how many.

    Args:
        connection: In autocommit.
        days: How long what is over is kept.
        batch: At most.
    """
    asked = {"days": days, "batch": batch}
    counts = [connection.execute(statement, asked).rowcount for statement in (SETTLED, UNSETTLED, SHARES)]
    settled, unsettled, shares = counts
    if any(counts):
        log.info("budgets.pruned", settled=settled, unsettled=unsettled, shares=shares)
    return max(counts)

"""The statements by which attempts reserve what they may cost, and settle what they did.

Locks are taken in one order: jobs by id, then shares of budgets by name, key and day. All that one process reserves or
settles at a time changes each share's row once, so that fifty workers with one budget between them wait for one another
for a commit each, and never in a circle.

A reservation is named by job, fence and call. It is made in the transaction of the intent, and taken off its share
once, when its attempt settles, late or not: a repeat finds it settled. Whatever dies in between leaves it reserved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy.engine import Connection

from producer.ledger.budgets import IN_FORCE, UNKNOWN
from producer.ledger.prepared import Prepared
from producer.ledger.states import State
from worker.json_text import as_json

# Both statements of a message have one time, its transaction's; so midnight is never between them.
DAY = "CASE WHEN a.daily THEN to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD') ELSE '' END"
ENDS = "CASE WHEN a.daily THEN date_trunc('day', now(), 'UTC') + interval '24 hours' END"
ASKED = """
  SELECT * FROM json_to_recordset(:asked) AS a(id uuid, fence bigint, attempt int, call int, ordinal int, budget text,
    key text, tenant text, daily boolean, usd numeric, tokens bigint, calls bigint)
"""

# A statement of its own, before the next: it would not see the rows that it has just made.
OPEN_ACCOUNTS = Prepared(
    "open_accounts",
    f"""
INSERT INTO budget_accounts (budget, key, day, tenant, ends_at)
SELECT DISTINCT a.budget, a.key, {DAY}, a.tenant, {ENDS} FROM ({ASKED}) a ORDER BY 1, 2, 3
ON CONFLICT DO NOTHING
""",
    asked="json",
)

# What fits a share by itself is added up in the order in which it was asked for; who is beyond the ceiling by that may
# still fit once somebody before him did not, and is told to ask again. What an action is not bound in is NULL.
RESERVE = Prepared(
    "reserve",
    f"""
WITH asked AS MATERIALIZED (
  SELECT a.*, {DAY} AS day FROM ({ASKED}) a
), named AS MATERIALIZED (
  SELECT j.id, j.fence, j.lease_owner = :worker AND j.state = :state AND j.lease_expires_at > clock_timestamp()
    AND (j.state = '{State.RUNNING}' OR j.cancel_requested_at IS NULL
         AND (j.deadline_at IS NULL OR j.deadline_at > clock_timestamp())) AS may
  FROM jobs j JOIN (SELECT DISTINCT id, fence FROM asked) a USING (id, fence)
  ORDER BY j.id FOR UPDATE OF j
), job AS MATERIALIZED (
  SELECT id, fence FROM named WHERE may
), share AS MATERIALIZED (
  SELECT c.budget, c.key, c.day, c.spent_usd + c.reserved_usd AS usd, c.spent_tokens + c.reserved_tokens AS tokens,
    c.spent_calls + c.reserved_calls AS calls
  FROM budget_accounts c
  JOIN (SELECT DISTINCT a.budget, a.key, a.day FROM asked a JOIN job USING (id, fence)) a USING (budget, key, day)
  ORDER BY c.budget, c.key, c.day FOR UPDATE OF c
), offered AS (
  SELECT a.*, s.usd AS taken_usd, s.tokens AS taken_tokens, s.calls AS taken_calls,
    {IN_FORCE.format(b="b", most="most_")}
  FROM asked a JOIN job USING (id, fence) JOIN share s USING (budget, key, day) LEFT JOIN budgets b ON b.name = a.budget
), single AS (
  SELECT *, bool_and(coalesce(taken_usd + usd <= most_usd, true)
    AND coalesce(taken_tokens + tokens <= most_tokens, true)
    AND coalesce(taken_calls + calls <= most_calls, true)) OVER (PARTITION BY id) AS fits
  FROM offered
), summed AS (
  SELECT id, fence, coalesce(usd IS NULL OR taken_usd + sum(usd) OVER before <= most_usd, true)
    AND coalesce(tokens IS NULL OR taken_tokens + sum(tokens) OVER before <= most_tokens, true)
    AND coalesce(taken_calls + sum(calls) OVER before <= most_calls, true) AS fits
  FROM single WHERE fits
  WINDOW before AS (PARTITION BY budget, key, day ORDER BY ordinal, call ROWS UNBOUNDED PRECEDING)
), granted AS (
  SELECT id, fence FROM summed GROUP BY id, fence HAVING bool_and(fits)
), made AS (
  INSERT INTO budget_reservations (job_id, fence, call, budget, key, day, attempt, usd, tokens, calls)
  SELECT a.id, a.fence, a.call, a.budget, a.key, a.day, a.attempt, a.usd, a.tokens, a.calls
  FROM asked a JOIN granted USING (id, fence)
  ON CONFLICT DO NOTHING
  RETURNING job_id, fence, attempt, call, budget, key, day, usd, tokens, calls
), taken AS (
  UPDATE budget_accounts c SET reserved_usd = c.reserved_usd + m.usd, reserved_tokens = c.reserved_tokens + m.tokens,
    reserved_calls = c.reserved_calls + m.calls
  FROM (SELECT budget, key, day, coalesce(sum(usd), 0) AS usd, coalesce(sum(tokens), 0) AS tokens, sum(calls) AS calls
        FROM made GROUP BY budget, key, day) m
  WHERE (c.budget, c.key, c.day) = (m.budget, m.key, m.day)
), numbered AS (
  UPDATE jobs j SET last_seq = j.last_seq + 1
  FROM (SELECT DISTINCT job_id FROM made) m WHERE j.id = m.job_id
  RETURNING j.id, j.last_seq
), noted AS (
  INSERT INTO events (job_id, seq, kind, attempt, fence, worker, data)
  SELECT n.id, n.last_seq, 'budget_reserved', m.attempt, m.fence, :worker, json_build_object('budgets', json_agg(
    json_strip_nulls(json_build_object('budget', m.budget, 'key', CAST(m.key AS json), 'day', nullif(m.day, ''),
      'call', nullif(m.call, 0), 'usd', CAST(trim_scale(m.usd) AS text), 'tokens', m.tokens, 'calls', m.calls))
    ORDER BY m.budget))
  FROM numbered n JOIN made m ON m.job_id = n.id GROUP BY n.id, n.last_seq, m.attempt, m.fence
)
SELECT id FROM granted
""",
    asked="json",
    worker="text",
    state="text",
)

# The job first, whoever has it by now: what a late attempt spent is known all the same. The job's lock orders the
# attempts that settle one reservation, and the second finds it settled.
SPEND = Prepared(
    "spend",
    """
WITH asked AS MATERIALIZED (
  SELECT * FROM json_to_recordset(:asked) AS a(id uuid, fence bigint, usd numeric, tokens bigint, calls bigint,
    at_least boolean)
), job AS MATERIALIZED (
  SELECT j.id, a.fence, a.usd, a.tokens, a.calls, a.at_least FROM jobs j JOIN asked a USING (id)
  ORDER BY j.id FOR UPDATE OF j
), closed AS (
  UPDATE budget_reservations r SET settled_at = clock_timestamp()
  FROM job a WHERE r.job_id = a.id AND r.fence = a.fence
    -- Said so that what was planned for no reservations never walks an index of all of them, or of all that are open.
    AND r.job_id = ANY (ARRAY(SELECT id FROM job)) AND coalesce(r.settled_at, '-infinity') = '-infinity'
  RETURNING r.job_id, r.fence, r.attempt, r.budget, r.key, r.day, r.usd AS held_usd, r.tokens AS held_tokens,
    r.calls AS held_calls, a.usd, a.tokens, a.calls, a.at_least
), attempted AS (
  SELECT job_id, fence, attempt, budget, key, day, at_least, usd, tokens, calls,
    coalesce(sum(held_usd), 0) AS held_usd, coalesce(sum(held_tokens), 0) AS held_tokens, sum(held_calls) AS held_calls
  FROM closed GROUP BY job_id, fence, attempt, budget, key, day, at_least, usd, tokens, calls
), spent AS (
  SELECT job_id, fence, attempt, budget, key, day, held_usd, held_tokens, held_calls,
    CASE WHEN at_least THEN greatest(usd, held_usd) ELSE coalesce(usd, held_usd) END AS usd,
    CASE WHEN at_least THEN greatest(tokens, held_tokens) ELSE coalesce(tokens, held_tokens) END AS tokens,
    CASE WHEN at_least THEN greatest(calls, held_calls) ELSE coalesce(calls, held_calls) END AS calls
  FROM attempted
), share AS MATERIALIZED (
  SELECT c.budget, c.key, c.day FROM budget_accounts c
  JOIN (SELECT DISTINCT budget, key, day FROM spent) s USING (budget, key, day)
  ORDER BY c.budget, c.key, c.day FOR UPDATE OF c
), moved AS (
  UPDATE budget_accounts c SET
    reserved_usd = c.reserved_usd - s.held_usd, spent_usd = c.spent_usd + s.usd,
    reserved_tokens = c.reserved_tokens - s.held_tokens, spent_tokens = c.spent_tokens + s.tokens,
    reserved_calls = c.reserved_calls - s.held_calls, spent_calls = c.spent_calls + s.calls
  FROM (SELECT budget, key, day, sum(held_usd) AS held_usd, sum(held_tokens) AS held_tokens,
          sum(held_calls) AS held_calls, sum(usd) AS usd, sum(tokens) AS tokens, sum(calls) AS calls
        FROM spent JOIN share USING (budget, key, day) GROUP BY budget, key, day) s
  WHERE (c.budget, c.key, c.day) = (s.budget, s.key, s.day)
), numbered AS (
  UPDATE jobs j SET last_seq = j.last_seq + 1
  FROM (SELECT DISTINCT job_id FROM spent) s WHERE j.id = s.job_id
  RETURNING j.id, j.last_seq
)
INSERT INTO events (job_id, seq, kind, attempt, fence, worker, data)
SELECT n.id, n.last_seq, 'budget_settled', s.attempt, s.fence, :worker, json_build_object('budgets', json_agg(
  json_build_object('budget', s.budget, 'key', CAST(s.key AS json), 'usd', CAST(trim_scale(s.usd) AS text),
    'tokens', s.tokens, 'calls', s.calls) ORDER BY s.budget))
FROM numbered n JOIN spent s ON s.job_id = n.id GROUP BY n.id, n.last_seq, s.attempt, s.fence
""",
    asked="json",
    worker="text",
)

# Asked only by those who were not let through.
ROOM = Prepared(
    "room",
    f"""
SELECT a.id, b.name, b.on_exhausted, a.key, nullif(c.day, '') AS day,
  extract(epoch FROM c.ends_at - clock_timestamp()) AS ends_in, {IN_FORCE.format(b="b", most="most_")},
  a.usd AS asked_usd, a.tokens AS asked_tokens, a.calls AS asked_calls, c.spent_usd, c.spent_tokens, c.spent_calls,
  c.reserved_usd, c.reserved_tokens, c.reserved_calls, u.unknown_usd, u.unknown_tokens, u.unknown_calls
FROM (SELECT a.*, {DAY} AS day FROM ({ASKED}) a) a
JOIN budgets b ON b.name = a.budget
JOIN budget_accounts c ON (c.budget, c.key, c.day) = (a.budget, a.key, a.day)
CROSS JOIN LATERAL ({UNKNOWN.format(c="c")}) u
ORDER BY a.id, b.name
""",
    asked="json",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What an attempt asks of one budget before a call.

    Attributes:
        key: Whose share, as canonical JSON without the day.
        tenant: Whose alone that is; None where several tenants have it.
        daily: Whether it is a day's, which the database's clock says.
        usd: None where the budget does not bind the action in money; as for `tokens`.
    """

    budget: str
    key: str
    tenant: str | None
    daily: bool
    usd: Decimal | None
    tokens: int | None
    calls: int
    call: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """An attempt that reserves: of one budget, or of several, all or nothing."""

    job_id: UUID
    fence: int
    attempt: int
    reservations: Sequence[Reservation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What an attempt used, for the reservations that it made.

    Attributes:
        usd: None where that is not known: then all that was reserved is spent; as for the others.
        at_least: Whether there may be more to it, so that no less is spent than was reserved.
    """

    usd: Decimal | None
    tokens: int | None
    calls: int | None
    at_least: bool


def reserving(askings: Sequence[Asking], *, worker: str, state: State) -> list[tuple[Prepared, dict[str, Any]]]:
    """Return the statements that reserve for these attempts, to be executed before their intents."""
    asked = as_json(_rows(askings))
    return [
        (OPEN_ACCOUNTS, {"asked": asked}),
        (RESERVE, {"asked": asked, "worker": worker, "state": state}),
    ]


def reserve_calls(connection: Connection, worker: str, askings: Sequence[Asking]) -> dict[UUID, bool]:
    """Reserve for further calls of attempts under way; return by job whether there was room, and it is still theirs."""
    (_, opening), (_, asked) = reserving(askings, worker=worker, state=State.RUNNING)
    granted = {row.id for row in RESERVE.run_after(connection, asked, [(OPEN_ACCOUNTS, opening)])}
    return {asking.job_id: asking.job_id in granted for asking in askings}


def spending(spent: Sequence[tuple[UUID, int, Spent]], *, worker: str) -> tuple[Prepared, dict[str, Any]]:
    """Return the statement that settles what these attempts, by job and fence, have reserved."""
    rows = [
        {
            "id": job_id,
            "fence": fence,
            "usd": each.usd,
            "tokens": each.tokens,
            "calls": each.calls,
            "at_least": each.at_least,
        }
        for job_id, fence, each in spent
    ]
    return SPEND, {"asked": as_json(rows), "worker": worker}


def room(connection: Connection, askings: Sequence[Asking]) -> dict[UUID, list[Any]]:
    """Read how the budgets stand that attempts asked in vain, by job; each row as `worker.budget_rules` takes it."""
    found: dict[UUID, list[Any]] = {asking.job_id: [] for asking in askings}
    for row in ROOM.run(connection, {"asked": as_json(_rows(askings))}):
        found[row.id].append(row)
    return found


def _rows(askings: Sequence[Asking]) -> list[dict[str, Any]]:
    return [
        {
            "id": asking.job_id,
            "fence": asking.fence,
            "attempt": asking.attempt,
            "ordinal": ordinal,
            "call": each.call,
            "budget": each.budget,
            "key": each.key,
            "tenant": each.tenant,
            "daily": each.daily,
            "usd": each.usd,
            "tokens": each.tokens,
            "calls": each.calls,
        }
        for ordinal, asking in enumerate(askings)
        for each in asking.reservations
    ]

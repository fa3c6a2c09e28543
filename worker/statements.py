"""The statements by which a worker moves the jobs that it owns: claim, intend, settle, renew.

Each takes many jobs and answers for each by its own row, under its own fence. A statement is a transaction. Claims, and
the intents of pure actions, commit without waiting for the disk: the write-ahead log is in order, so whatever makes a
later intent or outcome durable makes them durable first, and one that is lost was never followed by an effect that
anybody could see.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from uuid import UUID

from sqlalchemy.engine import Connection

from producer.ledger.accept import RING_PATIENCE_SECONDS
from producer.ledger.prepared import Prepared
from producer.ledger.states import CLOSED, LEASED, State, in_sql, looks_left, may_become
from producer.ledger.superseding import SUPERSEDES
from worker.attempt import Attempt, Intent, Lease, Settlement, attempt_of
from worker.budget_statements import reserving, spending
from worker.json_text import as_json, with_digest
from worker.meter import meter

# Row locks in the order of ids, so that two workers with jobs in common cannot wait for one another in a circle.
CLAIM = Prepared(
    "claim",
    f"""
WITH named AS MATERIALIZED (
  SELECT j.id, j.state, j.due_at, j.deadline_at, j.waiting_for,
    j.action = a.action AND j.action_version = a.version AS ours
  FROM unnest(:ids, :actions, :versions) AS a(id, action, version) JOIN jobs j ON j.id = a.id
  ORDER BY j.id FOR UPDATE OF j
), due AS (
  SELECT id FROM named
  WHERE ours AND state IN ({may_become(State.CLAIMED)})
    AND (due_at <= clock_timestamp() OR waiting_for IN ('concurrency', 'conversation'))  -- rung early, as it is free
    AND (deadline_at IS NULL OR deadline_at > clock_timestamp())
), claimed AS (
  UPDATE jobs j SET state = '{State.CLAIMED}', waiting_for = NULL, waiting_on = NULL, fence = fence + 1,
    looks_left = NULL, lease_owner = :worker, lease_expires_at = clock_timestamp() + make_interval(secs => :lease),
    last_seq = last_seq + 1
  FROM due WHERE j.id = due.id
  RETURNING j.*
), noted AS (
  INSERT INTO events (job_id, seq, kind, attempt, fence, worker)
  SELECT id, last_seq, 'claimed', attempt + 1, fence, :worker FROM claimed
)
SELECT c.id, c.tenant, c.action, c.attempt, c.fence, c.queue, c.priority, c.traceparent, c.maybe_happened, c.effect,
  c.cancel_requested_at IS NOT NULL AS cancel_requested,
  extract(epoch FROM clock_timestamp() - c.due_at) AS late,
  extract(epoch FROM c.deadline_at - clock_timestamp()) AS deadline_left,
  extract(epoch FROM c.repeatable_until - clock_timestamp()) AS repeat_left,
  c.conversation_id, c.repairs, d.repair, d.request_id, d.user_id, d.agent_id, d.params,
  {SUPERSEDES.format(j="c", d="d")} AS supersedes, set_config('synchronous_commit', 'off', true),
  (SELECT max(changed) FROM policies) AS policies
FROM claimed c JOIN decisions d ON d.job_id = c.id
""",
    ids="uuid[]",
    actions="text[]",
    versions="int[]",
    worker="text",
    lease="double precision",
)

# A repeat whose first try did land is answered alike: it finds the job running under its own fence, unless the lease
# has run out since: what begins then may go on while somebody else takes the job for silent. The owner is asked for,
# too: a Postgres that crashed may have forgotten a claim, and given its fence to somebody else. What time it is, is
# read once all rows are locked, for that may take a while, and is when the intents are on record.
INTEND_SQL = f"""
WITH asked AS (
  SELECT * FROM json_to_recordset(:asked)
    AS a(id uuid, fence bigint, effect text, repeat_seconds double precision, quiet_seconds double precision, data json)
), locked AS (
  SELECT a.*, j.state, j.cancel_requested_at IS NOT NULL AS cancelled, j.lease_expires_at, j.deadline_at,
    j.lease_owner = :worker AS owned
  FROM jobs j JOIN asked a USING (id, fence) ORDER BY j.id FOR UPDATE OF j
), mine AS MATERIALIZED (
  SELECT l.*, now, l.lease_expires_at > now AS alive, coalesce(l.deadline_at <= now, false) AS overdue
  FROM locked l CROSS JOIN (SELECT clock_timestamp() AS now FROM (SELECT count(*) AS n FROM locked) c WHERE n > 0) t
), intended AS (
  UPDATE jobs j SET state = '{State.RUNNING}', attempt = j.attempt + 1, effect = m.effect,
    repeatable_until = coalesce(j.repeatable_until, m.now + make_interval(secs => m.repeat_seconds)),
    quiet_at = CASE WHEN m.quiet_seconds IS NOT NULL
                    THEN greatest(j.quiet_at, m.now + make_interval(secs => m.quiet_seconds)) END,
    lease_expires_at = clock_timestamp() + make_interval(secs => :lease), last_seq = j.last_seq + 1
  FROM mine m
  WHERE j.id = m.id AND m.owned AND m.state IN ({may_become(State.RUNNING)})
    AND m.alive AND NOT m.cancelled AND NOT m.overdue {{reserved}}
  RETURNING j.id, j.last_seq, j.attempt, j.fence, m.now, m.data
), noted AS (
  INSERT INTO events (job_id, seq, at, kind, attempt, fence, worker, data)
  SELECT id, last_seq, now, 'intended', attempt, fence, :worker, data FROM intended
)
SELECT m.id, CASE WHEN m.id IN (SELECT id FROM intended) OR (m.alive AND m.state = '{State.RUNNING}') THEN 'intended'
                  WHEN m.alive AND m.cancelled THEN 'cancelled' WHEN m.alive AND m.overdue THEN 'expired'
                  WHEN m.alive THEN 'budget' ELSE 'lost' END AS answer,
  CASE WHEN :pure THEN set_config('synchronous_commit', 'off', true) END
FROM mine m WHERE m.owned
"""


def _intend_statement(name: str, reserved: str) -> Prepared:
    sql = INTEND_SQL.format(reserved=reserved)
    return Prepared(name, sql, asked="json", worker="text", lease="double precision", pure="boolean")


INTEND = _intend_statement("intend", "")
# After the statements that reserve, in their transaction: granted to those for whom they did.
RESERVED = "AND EXISTS (SELECT FROM budget_reservations r WHERE r.job_id = m.id AND r.fence = m.fence AND r.call = 0)"
INTEND_RESERVED = _intend_statement("intend_reserved", RESERVED)

# `moved` takes its rows from `locked`: a row that this statement updates before locking it would be skipped there. What
# the later arms need, the earlier ones hand on: to join them anew would compare every row with every other.
#
# A repeat whose first try did land finds its own event under its own fence, whoever has the job by now. Where the first
# try was still under way as this statement began, the event is too new to be seen; but then nobody has the job yet, and
# who claimed it under this fence is who settled it. Under a fence that was given anew (see INTEND) that is another.
SETTLE = Prepared(
    "settle",
    f"""
WITH asked AS (
  SELECT * FROM json_to_recordset(:asked) AS a(
    id uuid, fence bigint, was text, becomes text, waiting_for text, waiting_on text, delay double precision,
    unspent int, maybe_happened boolean, result text, error text, latency_ms numeric, tokens_in bigint,
    tokens_out bigint, cost_usd numeric, kind text, attempt int, patience double precision,
    quiet_seconds double precision, repair text, data json)
), locked AS (
  SELECT a.*, coalesce(j.fence = a.fence AND j.lease_owner = :worker AND j.state = a.was, false) AS mine,
    j.fence = a.fence AND j.lease_owner IS NULL AS released
  FROM jobs j JOIN asked a USING (id) ORDER BY j.id FOR UPDATE OF j
), moved AS (
  UPDATE jobs j SET state = l.becomes, waiting_for = l.waiting_for, waiting_on = l.waiting_on,
    due_at = CASE WHEN l.delay IS NULL THEN j.due_at
                  WHEN j.cancel_requested_at IS NOT NULL THEN statement_timestamp()
                  ELSE statement_timestamp() + make_interval(secs => l.delay) END,
    ring_at = CASE WHEN l.delay IS NULL THEN j.ring_at
                   WHEN j.cancel_requested_at IS NOT NULL THEN statement_timestamp()
                   ELSE statement_timestamp() + make_interval(secs => l.delay + l.patience) END,
    repairs = j.repairs + CAST(l.repair IS NOT NULL AS int),
    degraded_by = CASE WHEN l.becomes = '{State.DEGRADED}' THEN l.data ->> 'why' ELSE j.degraded_by END,
    attempt = j.attempt - l.unspent, maybe_happened = l.maybe_happened, lease_owner = NULL, lease_expires_at = NULL,
    quiet_at = CASE WHEN j.quiet_at IS NOT NULL  -- an attempt may have lasted for longer than it should
                    THEN greatest(j.quiet_at, clock_timestamp() + make_interval(secs => l.quiet_seconds)) END,
    looks_left = CASE WHEN l.delay IS NOT NULL THEN {looks_left("l.becomes")} END,
    finished_at = CASE WHEN l.becomes IN ({in_sql(CLOSED)}) THEN clock_timestamp() END, last_seq = j.last_seq + 1
  FROM locked l WHERE j.id = l.id AND l.mine
  RETURNING l.*, j.last_seq
), decided AS (
  UPDATE decisions d SET result = CAST(m.result AS json), error = CAST(m.error AS json),
    latency_ms = coalesce(m.latency_ms, d.latency_ms), repair = coalesce(CAST(m.repair AS json), d.repair),
    tokens_in = CASE WHEN m.tokens_in IS NULL THEN d.tokens_in ELSE coalesce(d.tokens_in, 0) + m.tokens_in END,
    tokens_out = CASE WHEN m.tokens_out IS NULL THEN d.tokens_out ELSE coalesce(d.tokens_out, 0) + m.tokens_out END,
    cost_usd = CASE WHEN m.cost_usd IS NULL THEN d.cost_usd ELSE coalesce(d.cost_usd, 0) + m.cost_usd END
  FROM moved m WHERE d.job_id = m.id
), unmoved AS (
  SELECT l.*, (SELECT e.kind FROM events e WHERE e.job_id = l.id AND e.fence = l.fence AND e.worker = :worker
                 AND (e.kind IN (l.kind, 'late_result') OR (l.released AND e.kind = 'claimed'))
               ORDER BY e.kind = 'late_result' LIMIT 1) AS noted
  FROM locked l WHERE NOT l.mine
), late AS (
  UPDATE jobs j SET last_seq = j.last_seq + 1
  FROM unmoved u WHERE j.id = u.id AND u.noted IS NULL
  RETURNING u.*, j.last_seq
), noted AS (
  INSERT INTO events (job_id, seq, kind, attempt, fence, worker, data)
  SELECT id, last_seq, kind, attempt, fence, :worker, data FROM moved
  UNION ALL
  SELECT id, last_seq, 'late_result', attempt, fence, :worker,
         json_build_object('would_be', becomes, 'result', CAST(result AS json), 'error', CAST(error AS json))
  FROM late
)
SELECT id, 'settled' AS answer FROM moved
UNION ALL
SELECT id, CASE WHEN noted <> 'late_result' THEN 'repeated' ELSE 'late' END FROM unmoved
""",
    asked="json",
    worker="text",
)

# What somebody else has locked is left for the next time: one such row must not cost a process all of its leases. It
# is renewed only after its claim was answered, so that every version of the row that this may see has a lease.
RENEW = Prepared(
    "renew",
    f"""
WITH held AS MATERIALIZED (
  SELECT j.id, a.fence, j.fence = a.fence AND j.lease_owner = :worker AND j.state IN ({in_sql(LEASED)})
    AND j.lease_expires_at > clock_timestamp() AS ours
  FROM unnest(:ids, :fences) AS a(id, fence) JOIN jobs j ON j.id = a.id ORDER BY j.id FOR UPDATE OF j SKIP LOCKED
), renewed AS (
  UPDATE jobs j SET lease_expires_at = clock_timestamp() + make_interval(secs => :lease)
  FROM held h WHERE j.id = h.id AND h.ours
)
SELECT id, fence, ours FROM held
""",
    ids="uuid[]",
    fences="bigint[]",
    worker="text",
    lease="double precision",
)

PURE = "pure"
# Attempts that reserve, or settle what they reserved, in one transaction.
PORTION = 100
WITH_RESULT = (State.SUCCEEDED, State.DEGRADED)

R = TypeVar("R")

Granted = Literal["intended", "cancelled", "expired", "budget", "lost", "unapproved"]
Settled = Literal["settled", "repeated", "late"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A job that was rung, to be claimed if it is due, nobody's, and of this version of the action."""

    action: str
    version: int
    job_id: UUID


def claim(connection: Connection, worker: str, lease_seconds: float, wanted: Sequence[Wanted]) -> list[Attempt]:
    """Claim those of the jobs that can be; leave out the others."""
    asked = {
        "ids": [each.job_id for each in wanted],
        "actions": [each.action for each in wanted],
        "versions": [each.version for each in wanted],
        "worker": worker,
        "lease": lease_seconds,
    }
    attempts = [
        attempt_of(row, number=row.attempt + 1, policies=row.policies, late_seconds=max(0.0, float(row.late)))
        for row in CLAIM.run(connection, asked)
    ]
    for attempt in attempts:
        meter().claimed(attempt.action, attempt.late_seconds)
    return attempts


def intend(connection: Connection, worker: str, lease_seconds: float, intents: Sequence[Intent]) -> dict[UUID, Granted]:
    """Record intents; a job that has another owner is left out."""
    parameters = _intend_parameters(worker, lease_seconds, intents)
    return {row.id: row.answer for row in INTEND.run(connection, parameters)}


def intend_within(connection: Connection, worker: str, lease_seconds: float, asked: Intent) -> Granted:
    """Record an intent, and what it reserves of budgets, in a caller's transaction."""
    parameters = _intend_parameters(worker, lease_seconds, [asked])
    if asked.asking is None:
        rows = INTEND.run_plain(connection, parameters)
    else:
        for step, given in reserving([asked.asking], worker=worker, state=State.CLAIMED):
            step.execute_plain(connection, given)
        rows = INTEND_RESERVED.run_plain(connection, parameters | {"pure": False})
    return rows[0].answer if rows else "lost"


def intend_reserving(
    connection: Connection, worker: str, lease_seconds: float, intents: Sequence[Intent]
) -> dict[UUID, Granted]:
    """Record intents of attempts that reserve of budgets; ``budget`` where one of those has too little left.

    They wait for the disk, pure as they may be: what was spent must not be forgotten.
    """
    answers: dict[UUID, Granted] = {}
    for portion in _portions(intents):
        before = reserving([i.asking for i in portion if i.asking is not None], worker=worker, state=State.CLAIMED)
        parameters = _intend_parameters(worker, lease_seconds, portion) | {"pure": False}
        answers |= {row.id: row.answer for row in INTEND_RESERVED.run_after(connection, parameters, before)}
    return answers


def settle(
    connection: Connection, worker: str, settlements: Sequence[Settlement], *, prepared: bool = True
) -> dict[UUID, Settled]:
    """Settle attempts, each on its own terms; not by the prepared statement where they belong to a transaction.

    What they have reserved is settled with them, before them, since a late one spent it all the same.
    """
    parameters = {"asked": as_json([_settlement_row(s) for s in settlements]), "worker": worker}
    spent = [(s.job_id, s.fence, s.spent) for s in settlements if s.spent is not None]
    if not prepared:
        if spent:
            spend, asked = spending(spent, worker=worker)
            spend.execute_plain(connection, asked)
        rows = SETTLE.run_plain(connection, parameters)
    elif spent:
        rows = SETTLE.run_after(connection, parameters, [spending(spent, worker=worker)])
    else:
        rows = SETTLE.run(connection, parameters)
    return {row.id: row.answer for row in rows}


def settle_spending(connection: Connection, worker: str, settlements: Sequence[Settlement]) -> dict[UUID, Settled]:
    """Settle attempts that have reserved of budgets."""
    answers: dict[UUID, Settled] = {}
    for portion in _portions(settlements):
        answers |= settle(connection, worker, portion)
    return answers


def renew(connection: Connection, worker: str, lease_seconds: float, leases: Collection[Lease]) -> dict[Lease, bool]:
    """Prolong leases; return whether each is still ours. One that somebody else has locked is left out, as it was."""
    job_ids, fences = [job_id for job_id, _ in leases], [fence for _, fence in leases]
    asked = {"ids": job_ids, "fences": fences, "worker": worker, "lease": lease_seconds}
    rows = RENEW.run(connection, asked)
    return {(row.id, row.fence): row.ours for row in rows}


def _intend_parameters(worker: str, lease_seconds: float, intents: Sequence[Intent]) -> dict[str, Any]:
    asked = [
        {
            "id": i.job_id,
            "fence": i.fence,
            "effect": i.effect,
            "repeat_seconds": i.repeat_seconds,
            "quiet_seconds": i.quiet_seconds,
            "data": i.data,
        }
        for i in intents
    ]
    pure = all(intent.effect == PURE for intent in intents)
    return {"asked": as_json(asked), "worker": worker, "lease": lease_seconds, "pure": pure}


def _portions(rows: Sequence[R]) -> Iterator[Sequence[R]]:
    """Split rows so that no transaction keeps a share of a budget locked for long."""
    for start in range(0, len(rows), PORTION):
        yield rows[start : start + PORTION]


def _settlement_row(s: Settlement) -> dict[str, Any]:
    result = as_json(s.result) if s.becomes in WITH_RESULT else None
    return {
        "id": s.job_id,
        "fence": s.fence,
        "was": s.was,
        "becomes": s.becomes,
        "waiting_for": s.waiting_for,
        "waiting_on": s.waiting_on,
        "delay": s.delay,
        "unspent": s.unspent,
        "maybe_happened": s.maybe_happened,
        "result": result,
        "error": None if s.error is None else as_json(s.error),
        "latency_ms": s.latency_ms,
        "tokens_in": s.tokens_in,
        "tokens_out": s.tokens_out,
        "cost_usd": s.cost_usd,
        "kind": s.kind,
        "attempt": s.attempt,
        "patience": RING_PATIENCE_SECONDS if s.rings else 0,
        "quiet_seconds": s.quiet_seconds,
        "repair": None if s.repair is None else as_json(s.repair),
        "data": with_digest(s.data, result),
    }

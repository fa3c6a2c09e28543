"""A worker's writes to the ledger: claim, intend, settle, renew. Nothing else here moves a job that it owns.

Each takes many jobs in one statement and answers for each by its own row, under its own fence. A statement is a
transaction. Claims, and the intents of pure actions, commit without waiting for the disk: the write-ahead log is in
order, so whatever makes a later intent or outcome durable makes them durable first, and one that is lost was never
followed by an effect that anybody could see.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.engine import Connection

from producer.ledger.accept import RING_PATIENCE_SECONDS
from producer.ledger.states import CLOSED, LEASED, State, in_sql, may_become
from worker.attempt import Attempt, Intent, Settlement
from worker.prepared import Prepared

# Row locks in the order of ids, so that two workers with jobs in common cannot wait for one another in a circle.
CLAIM = Prepared(
    "claim",
    f"""
WITH named AS MATERIALIZED (
  SELECT * FROM jobs WHERE id = ANY(:ids) ORDER BY id FOR UPDATE
), due AS (
  SELECT id FROM named
  WHERE action = :action AND action_version = :version AND state IN ({may_become(State.CLAIMED)})
    AND due_at <= clock_timestamp() AND (deadline_at IS NULL OR deadline_at > clock_timestamp())
), claimed AS (
  UPDATE jobs j SET state = '{State.CLAIMED}', waiting_for = NULL, fence = fence + 1, lease_owner = :worker,
    lease_expires_at = clock_timestamp() + make_interval(secs => :lease), last_seq = last_seq + 1
  FROM due WHERE j.id = due.id
  RETURNING j.*
), noted AS (
  INSERT INTO events (job_id, seq, kind, attempt, fence, worker)
  SELECT id, last_seq, 'claimed', attempt + 1, fence, :worker FROM claimed
)
SELECT c.id, c.tenant, c.action, c.attempt, c.fence, c.queue, c.priority, c.traceparent, c.maybe_happened, c.effect,
  c.cancel_requested_at IS NOT NULL AS cancel_requested,
  extract(epoch FROM c.deadline_at - clock_timestamp()) AS deadline_left,
  extract(epoch FROM c.repeatable_until - clock_timestamp()) AS repeat_left,
  d.request_id, d.user_id, d.agent_id, d.params, set_config('synchronous_commit', 'off', true)
FROM claimed c JOIN decisions d ON d.job_id = c.id
""",
    ids="uuid[]",
    action="text",
    version="int",
    worker="text",
    lease="double precision",
)

# A repeat whose first try did land is answered alike: it finds the job running under its own fence.
INTEND = Prepared(
    "intend",
    f"""
WITH asked AS (
  SELECT * FROM json_to_recordset(:asked)
    AS a(id uuid, fence bigint, effect text, repeat_seconds double precision, data json)
), mine AS (
  SELECT a.*, j.state, j.cancel_requested_at IS NOT NULL AS cancelled, j.lease_expires_at > clock_timestamp() AS alive,
    coalesce(j.deadline_at <= clock_timestamp(), false) AS overdue
  FROM jobs j JOIN asked a USING (id, fence) ORDER BY j.id FOR UPDATE OF j
), intended AS (
  UPDATE jobs j SET state = '{State.RUNNING}', attempt = j.attempt + 1, effect = m.effect,
    repeatable_until = coalesce(j.repeatable_until, clock_timestamp() + make_interval(secs => m.repeat_seconds)),
    lease_expires_at = clock_timestamp() + make_interval(secs => :lease), last_seq = j.last_seq + 1
  FROM mine m
  WHERE j.id = m.id AND m.state IN ({may_become(State.RUNNING)}) AND m.alive AND NOT m.cancelled AND NOT m.overdue
  RETURNING j.id, j.last_seq, j.attempt, j.fence, m.data
), noted AS (
  INSERT INTO events (job_id, seq, kind, attempt, fence, worker, data)
  SELECT id, last_seq, 'intended', attempt, fence, :worker, data FROM intended
)
SELECT m.id, CASE WHEN m.id IN (SELECT id FROM intended) OR m.state = '{State.RUNNING}' THEN 'intended'
                  WHEN m.alive AND m.cancelled THEN 'cancelled' WHEN m.alive AND m.overdue THEN 'expired'
                  ELSE 'lost' END AS answer,
  CASE WHEN :pure THEN set_config('synchronous_commit', 'off', true) END
FROM mine m
""",
    asked="json",
    worker="text",
    lease="double precision",
    pure="boolean",
)

# `moved` takes its rows from `owned`: a row that this statement updates before locking it would be skipped there.
SETTLE = Prepared(
    "settle",
    f"""
WITH asked AS (
  SELECT * FROM json_to_recordset(:asked) AS a(
    id uuid, fence bigint, was text, becomes text, waiting_for text, delay double precision, unspent int,
    maybe_happened boolean, result text, error text, latency_ms numeric, tokens_in bigint, tokens_out bigint,
    cost_usd numeric, kind text, attempt int, patience double precision, data json)
), owned AS (
  SELECT j.id, j.fence = a.fence AS mine, j.state FROM jobs j JOIN asked a USING (id) ORDER BY j.id FOR UPDATE OF j
), moved AS (
  UPDATE jobs j SET state = a.becomes, waiting_for = a.waiting_for,
    due_at = CASE WHEN a.delay IS NULL THEN j.due_at
                  WHEN j.cancel_requested_at IS NOT NULL THEN statement_timestamp()
                  ELSE statement_timestamp() + make_interval(secs => a.delay) END,
    ring_at = CASE WHEN a.delay IS NULL THEN j.ring_at
                   WHEN j.cancel_requested_at IS NOT NULL THEN statement_timestamp()
                   ELSE statement_timestamp() + make_interval(secs => a.delay + a.patience) END,
    attempt = j.attempt - a.unspent, maybe_happened = a.maybe_happened, lease_owner = NULL, lease_expires_at = NULL,
    finished_at = CASE WHEN a.becomes IN ({in_sql(CLOSED)}) THEN clock_timestamp() END, last_seq = j.last_seq + 1
  FROM asked a JOIN owned o USING (id) WHERE j.id = o.id AND j.fence = a.fence AND j.state = a.was
  RETURNING j.id, j.last_seq
), decided AS (
  UPDATE decisions d SET result = CAST(a.result AS json), error = CAST(a.error AS json),
    latency_ms = coalesce(a.latency_ms, d.latency_ms),
    tokens_in = CASE WHEN a.tokens_in IS NULL THEN d.tokens_in ELSE coalesce(d.tokens_in, 0) + a.tokens_in END,
    tokens_out = CASE WHEN a.tokens_out IS NULL THEN d.tokens_out ELSE coalesce(d.tokens_out, 0) + a.tokens_out END,
    cost_usd = CASE WHEN a.cost_usd IS NULL THEN d.cost_usd ELSE coalesce(d.cost_usd, 0) + a.cost_usd END
  FROM asked a JOIN moved m USING (id) WHERE d.job_id = m.id
), late AS (
  UPDATE jobs j SET last_seq = j.last_seq + 1
  FROM owned o WHERE j.id = o.id AND NOT o.mine
  RETURNING j.id, j.last_seq
), noted AS (
  INSERT INTO events (job_id, seq, kind, attempt, fence, worker, data)
  SELECT a.id, m.last_seq, a.kind, a.attempt, a.fence, :worker, a.data FROM asked a JOIN moved m USING (id)
  UNION ALL
  SELECT a.id, l.last_seq, 'late_result', a.attempt, a.fence, :worker,
         json_build_object('would_be', a.becomes, 'result', CAST(a.result AS json), 'error', CAST(a.error AS json))
  FROM asked a JOIN late l USING (id)
)
SELECT o.id, CASE WHEN o.id IN (SELECT id FROM moved) THEN 'settled'
                  WHEN o.mine THEN 'repeated' ELSE 'late' END AS answer
FROM owned o
""",
    asked="json",
    worker="text",
)

RENEW = Prepared(
    "renew",
    f"""
WITH held AS MATERIALIZED (
  SELECT j.id, j.fence = a.fence AND j.state IN ({in_sql(LEASED)}) AND j.lease_expires_at > clock_timestamp() AS ours
  FROM unnest(:ids, :fences) AS a(id, fence) JOIN jobs j ON j.id = a.id ORDER BY j.id FOR UPDATE OF j
)
UPDATE jobs j SET lease_expires_at = clock_timestamp() + make_interval(secs => :lease)
FROM held h WHERE j.id = h.id AND h.ours
RETURNING j.id
""",
    ids="uuid[]",
    fences="bigint[]",
    lease="double precision",
)

PURE = "pure"

Granted = Literal["intended", "cancelled", "expired", "lost"]
Settled = Literal["settled", "repeated", "late"]


class Writer:
    """Writes for one worker process. Thread-safe; connections come from the engine's pool."""

    def __init__(self, engine: Engine, *, worker: str, lease_seconds: float) -> None:
        """Connect nothing yet.

        Args:
            engine: In autocommit, of this process alone.
            worker: Who the ledger says owns the jobs; unique among the living.
            lease_seconds: How long each claim, intent and renewal lasts, on the database's clock.
        """
        self._engine, self.worker, self._lease = engine, worker, lease_seconds

    def claim(self, action: str, version: int, job_ids: Sequence[UUID]) -> list[Attempt]:
        """Take over those of the action's jobs that are due and that nobody owns; leave out the others.

        A job that was accepted for another version of the action is left to a worker of that version: its params
        mean something else there.
        """
        asked = {
            "ids": list(job_ids),
            "action": action,
            "version": version,
            "worker": self.worker,
            "lease": self._lease,
        }
        with self._engine.connect() as connection:
            return [_attempt(row) for row in CLAIM.run(connection, asked)]

    def intend(self, intents: Sequence[Intent]) -> dict[UUID, Granted]:
        """Record that the effects are about to happen, for the jobs for which they may.

        Returns:
            For each job ``intended``; or ``cancelled`` or ``expired``, which its owner should settle; a job whose
            lease ran out is ``lost``, and one that has another owner is left out. The effects of these must not
            happen.
        """
        asked = [
            {"id": i.job_id, "fence": i.fence, "effect": i.effect, "repeat_seconds": i.repeat_seconds, "data": i.data}
            for i in intents
        ]
        pure = all(intent.effect == PURE for intent in intents)
        parameters = {"asked": _json(asked), "worker": self.worker, "lease": self._lease, "pure": pure}
        with self._engine.connect() as connection:
            return {row.id: row.answer for row in INTEND.run(connection, parameters)}

    def settle(self, settlements: Sequence[Settlement]) -> dict[UUID, Settled]:
        """Write how attempts ended, each with its decision's outcome and its event, or not at all.

        Returns:
            For each job ``settled``; ``repeated`` where an earlier try of this same call had landed; or ``late``
            where the job has another owner by now: what this attempt brought is an event and changes nothing.
        """
        parameters = {
            "asked": _json([_settlement_row(s) for s in settlements]),
            "worker": self.worker,
        }
        with self._engine.connect() as connection:
            return {row.id: row.answer for row in SETTLE.run(connection, parameters)}

    def renew(self, held: Iterable[tuple[UUID, int]]) -> set[UUID]:
        """Prolong leases, each named with its fence; return the jobs that are still ours."""
        with self._engine.connect() as connection:
            return renew(connection, dict(held), self._lease)


def renew(connection: Connection, held: Mapping[UUID, int], lease_seconds: float) -> set[UUID]:
    """Prolong leases over a given connection: renewals have their own, so that no crowd can keep them waiting."""
    parameters = {"ids": list(held), "fences": list(held.values()), "lease": lease_seconds}
    return set(RENEW.run(connection, parameters).scalars())


def _attempt(row: Any) -> Attempt:
    return Attempt(
        job_id=row.id,
        tenant=row.tenant,
        action=row.action,
        params=row.params,
        fence=row.fence,
        number=row.attempt + 1,
        queue=row.queue,
        priority=row.priority,
        traceparent=row.traceparent,
        request_id=row.request_id,
        user_id=row.user_id,
        agent_id=row.agent_id,
        maybe_happened=row.maybe_happened,
        cancel_requested=row.cancel_requested,
        deadline_left=None if row.deadline_left is None else float(row.deadline_left),
        repeat_left=None if row.repeat_left is None else float(row.repeat_left),
        intended_before=row.effect is not None,
    )


def _settlement_row(s: Settlement) -> dict[str, Any]:
    return {
        "id": s.job_id,
        "fence": s.fence,
        "was": s.was,
        "becomes": s.becomes,
        "waiting_for": s.waiting_for,
        "delay": s.delay,
        "unspent": s.unspent,
        "maybe_happened": s.maybe_happened,
        "result": None if s.becomes is not State.SUCCEEDED else _json(s.result),
        "error": None if s.error is None else _json(s.error),
        "latency_ms": s.latency_ms,
        "tokens_in": s.tokens_in,
        "tokens_out": s.tokens_out,
        "cost_usd": s.cost_usd,
        "kind": s.kind,
        "attempt": s.attempt,
        "patience": RING_PATIENCE_SECONDS if s.rings else 0,
        "data": s.data,
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)

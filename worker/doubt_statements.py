"""The statements by which a worker looks at jobs in doubt: take them up, and rule on them.

A look takes no lease, for it changes nothing outside: whoever takes a job up raises its fence and puts off the next
look. A worker that dies in between has spent one look, and the relay rings the job again when the next is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.engine import Connection

from producer.ledger.accept import RING_PATIENCE_SECONDS
from producer.ledger.conversations import wake_turns
from producer.ledger.engine import transaction_on
from producer.ledger.prepared import Prepared
from producer.ledger.states import CLOSED, State, in_sql
from producer.ledger.superseding import SUPERSEDES, supersede
from worker.attempt import attempt_of
from worker.doubt import Doubt, Ruling
from worker.json_text import as_json, with_digest

TAKE_UP = Prepared(
    "take_up",
    f"""
WITH named AS MATERIALIZED (
  SELECT j.id, a.seconds,
    j.state = '{State.IN_DOUBT}' AND j.looks_left > 0 AND j.action = a.action AND j.action_version = a.version AS ours,
    j.due_at <= clock_timestamp() AS due
  FROM unnest(:ids, :actions, :versions, :seconds) AS a(id, action, version, seconds) JOIN jobs j ON j.id = a.id
  ORDER BY j.id FOR UPDATE OF j
), taken AS (
  UPDATE jobs j SET fence = fence + 1, looks_left = looks_left - 1,
    due_at = statement_timestamp() + make_interval(secs => n.seconds),
    ring_at = statement_timestamp() + make_interval(secs => n.seconds)
  FROM named n WHERE j.id = n.id AND n.ours AND n.due
  RETURNING j.*
)
SELECT t.id, t.tenant, t.action, t.attempt, t.fence, t.queue, t.priority, t.traceparent, t.maybe_happened, t.effect,
  t.cancel_requested_at IS NOT NULL AS cancel_requested, NULL AS deadline_left, NULL AS repeat_left,
  t.looks_left, t.crashes, extract(epoch FROM t.quiet_at - clock_timestamp()) AS quiet_in,
  extract(epoch FROM clock_timestamp() - t.absent_at) AS absent_for,
  t.conversation_id, t.repairs, d.repair, d.request_id, d.user_id, d.agent_id, d.params,
  {SUPERSEDES.format(j="t", d="d")} AS supersedes
FROM taken t JOIN decisions d ON d.job_id = t.id
""",
    ids="uuid[]",
    actions="text[]",
    versions="int[]",
    seconds="double precision[]",
)

# The fence goes up with the ruling, too: a repeat whose first try did land finds another, and changes nothing.
RULE = Prepared(
    "rule",
    f"""
WITH asked AS (
  SELECT * FROM json_to_recordset(:asked) AS a(
    id uuid, fence bigint, attempt int, becomes text, waiting_for text, delay double precision,
    patience double precision, absent boolean,
    result text, data json)
), mine AS (
  SELECT a.*, j.state FROM jobs j JOIN asked a USING (id, fence) ORDER BY j.id FOR UPDATE OF j
), moved AS (
  UPDATE jobs j SET state = m.becomes, waiting_for = m.waiting_for, fence = j.fence + 1, last_seq = j.last_seq + 1,
    finished_at = CASE WHEN m.becomes IN ({in_sql(CLOSED)}) THEN clock_timestamp() END,
    due_at = CASE WHEN m.delay IS NULL THEN j.due_at
                  ELSE statement_timestamp() + make_interval(secs => m.delay) END,
    ring_at = CASE WHEN m.delay IS NULL THEN j.ring_at
                   ELSE statement_timestamp() + make_interval(secs => m.delay + m.patience) END,
    looks_left = CASE WHEN m.becomes = '{State.IN_DOUBT}' THEN j.looks_left END,
    absent_at = CASE WHEN m.absent THEN coalesce(j.absent_at, clock_timestamp())
                     WHEN m.becomes = '{State.IN_DOUBT}' THEN j.absent_at END,
    -- What did not happen begins anew as far as the outside goes.
    maybe_happened = j.maybe_happened AND m.becomes IN ('{State.IN_DOUBT}', '{State.SUCCEEDED}'),
    effect = CASE WHEN m.becomes <> '{State.WAITING}' THEN j.effect END,
    repeatable_until = CASE WHEN m.becomes <> '{State.WAITING}' THEN j.repeatable_until END,
    quiet_at = CASE WHEN m.becomes <> '{State.WAITING}' THEN j.quiet_at END
  FROM mine m WHERE j.id = m.id AND m.state = '{State.IN_DOUBT}'
  RETURNING m.*, j.last_seq, j.fence AS new_fence, j.conversation_id
), decided AS (
  UPDATE decisions d SET result = CAST(m.result AS json), error = NULL
  FROM moved m WHERE d.job_id = m.id AND m.becomes = '{State.SUCCEEDED}'
), noted AS (
  INSERT INTO events (job_id, seq, kind, attempt, fence, worker, data)
  SELECT id, last_seq, 'verified', attempt, new_fence, :worker, data FROM moved
)
SELECT id, becomes, conversation_id FROM moved
""",
    asked="json",
    worker="text",
)

Ruled = Literal["ruled", "overtaken"]


@dataclass(frozen=True, slots=True)
class WantedLook:
    """A job to be looked at, if it is in doubt, due, and of this version of the action.

    Attributes:
        seconds: Until the next look, should this one never be heard of again.
    """

    action: str
    version: int
    job_id: UUID
    seconds: float


def take_up(connection: Connection, wanted: Sequence[WantedLook]) -> list[Doubt]:
    """Take up those of the jobs that can be looked at; leave out the others."""
    asked = {
        "ids": [each.job_id for each in wanted],
        "actions": [each.action for each in wanted],
        "versions": [each.version for each in wanted],
        "seconds": [each.seconds for each in wanted],
    }
    return [_doubt(row) for row in TAKE_UP.run(connection, asked)]


def write_rulings(connection: Connection, worker: str, rulings: Sequence[Ruling]) -> dict[UUID, Ruled]:
    """Write rulings, each with its event; one on a job that has moved on is left out."""
    asked = as_json([_ruling_row(ruling) for ruling in rulings])
    parameters = {"asked": asked, "worker": worker}
    superseding = [each.job_id for each in rulings if each.supersedes and each.becomes is State.SUCCEEDED]
    if superseding:
        with transaction_on(connection):
            rows = RULE.run_plain(connection, parameters)
            supersede(connection, superseding, worker=worker)
    else:
        rows = RULE.run(connection, parameters)
    # A turn of a conversation that ended by a ruling makes room for the next.
    wake_turns(connection, [row.id for row in rows if row.conversation_id is not None and row.becomes in CLOSED])
    return {row.id: "ruled" for row in rows}


def _doubt(row: Any) -> Doubt:
    return Doubt(
        attempt=attempt_of(row, number=row.attempt),
        quiet_in=float(row.quiet_in),
        absent_for=None if row.absent_for is None else float(row.absent_for),
        looks_left=row.looks_left,
        crashes=row.crashes,
    )


def _ruling_row(ruling: Ruling) -> dict[str, Any]:
    result = None if ruling.becomes is not State.SUCCEEDED else as_json(ruling.result)
    return {
        "id": ruling.job_id,
        "fence": ruling.fence,
        "attempt": ruling.attempt,
        "becomes": ruling.becomes,
        "waiting_for": ruling.waiting_for,
        "delay": ruling.delay,
        "patience": RING_PATIENCE_SECONDS if ruling.rings else 0,
        "absent": ruling.absent,
        "result": result,
        "data": with_digest(ruling.event_data(), result),
    }

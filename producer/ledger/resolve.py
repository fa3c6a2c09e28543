"""Resolving a job in doubt: somebody has found out whether its effect happened, or gives it up."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.acting import Actor
from producer.ledger.acts import act_of, note_act
from producer.ledger.engine import WAKE_CHANNEL, transaction_on
from producer.ledger.states import CLOSED, State, in_sql
from producer.ledger.superseding import supersede

Verdict = Literal["happened", "retry", "abandon"]

BECOMES: dict[Verdict, State] = {"happened": State.SUCCEEDED, "retry": State.WAITING, "abandon": State.DEAD}

# A job that is tried again begins anew as far as the outside goes: it surely had no effect, so what its first intent
# left to be remembered is forgotten, and neither an earlier request to cancel it nor its crashes count any more.
RESOLVE = text(f"""
WITH moved AS (
  UPDATE jobs SET state = :becomes, fence = fence + 1, last_seq = last_seq + 1,
    finished_at = CASE WHEN :becomes IN ({in_sql(CLOSED)}) THEN clock_timestamp() END,
    waiting_for = CASE WHEN :again THEN 'retry' END,
    due_at = CASE WHEN :again THEN clock_timestamp() ELSE due_at END,
    ring_at = CASE WHEN :again THEN clock_timestamp() ELSE ring_at END,
    maybe_happened = maybe_happened AND NOT :again,
    effect = CASE WHEN NOT :again THEN effect END,
    repeatable_until = CASE WHEN NOT :again THEN repeatable_until END,
    quiet_at = CASE WHEN NOT :again THEN quiet_at END,
    absent_at = NULL, looks_left = NULL,
    cancel_requested_at = CASE WHEN NOT :again THEN cancel_requested_at END,
    crashes = CASE WHEN :again THEN 0 ELSE crashes END
  WHERE id = :id AND tenant = :tenant AND state = '{State.IN_DOUBT}'
  RETURNING id, last_seq, fence
), decided AS (
  UPDATE decisions d SET result = CAST(:result AS json), error = CASE WHEN NOT :happened THEN d.error END
  FROM moved m WHERE d.job_id = m.id
), noted AS (
  INSERT INTO events (job_id, seq, kind, fence, data)
  SELECT id, last_seq, 'resolved', fence, json_strip_nulls(json_build_object(
    'verdict', CAST(:verdict AS text), 'to', CAST(:becomes AS text), 'reason', CAST(:reason AS text),
    'who', CAST(:who AS text), 'via', CAST(:via AS text),
    'result_sha256', encode(sha256(convert_to(CAST(:result AS text), 'UTF8')), 'hex')))
  FROM moved
)
SELECT id, CASE WHEN :again THEN pg_notify(:channel, '') END FROM moved
""")


def resolve(
    connection: Connection,
    tenant: str,
    job_id: UUID,
    verdict: Verdict,
    *,
    result: str | None,
    reason: str,
    actor: Actor,
) -> bool:
    """Resolve a job in doubt, with its decision's outcome and its event, in one transaction.

    Args:
        connection: In autocommit.
        tenant: Whose job it is.
        job_id: The job.
        verdict: ``happened``: it succeeded with `result`. ``retry``: its effect did not happen, and it is due now.
            ``abandon``: nobody will find out any more, and it is ``dead``.
        result: JSON text, for ``happened``.
        reason: Kept in the job's history, as is who says so.
        actor: Who says so.

    Returns:
        Whether it was in doubt; where not, nothing was written.
    """
    asked = {
        "id": job_id,
        "tenant": tenant,
        "verdict": verdict,
        "becomes": BECOMES[verdict],
        "again": verdict == "retry",
        "happened": verdict == "happened",
        "result": result,
        "reason": reason,
        "who": actor.who,
        "via": actor.via,
        "channel": WAKE_CHANNEL,
    }
    with transaction_on(connection):
        resolved = connection.execute(RESOLVE, asked).one_or_none() is not None
        if resolved and verdict == "happened":
            supersede(connection, [job_id], worker=None)
        if resolved:
            note_act(connection, act_of(actor, tenant, "resolve", job_id, reason=reason, verdict=verdict))
    return resolved

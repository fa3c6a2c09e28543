"""Retrying a dead job: a person has removed what it died of."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.acting import Actor
from producer.ledger.acts import act_of, note_act
from producer.ledger.engine import WAKE_CHANNEL, transaction_on
from producer.ledger.states import State

# One that was given up while its effect may have happened is left alone: to do it again is a new request's to ask for.
# So is one whose key was asked for anew since: two jobs would do what one key stands for.
RETRY = text(f"""
WITH moved AS (
  UPDATE jobs SET state = '{State.QUEUED}', fence = fence + 1, last_seq = last_seq + 1, crashes = 0,
    finished_at = NULL, cancel_requested_at = NULL, due_at = clock_timestamp(), ring_at = clock_timestamp(),
    deadline_at = CASE WHEN deadline_at > clock_timestamp() THEN deadline_at END
  WHERE id = :id AND tenant = :tenant AND state = '{State.DEAD}' AND NOT maybe_happened
    AND NOT EXISTS (
      SELECT FROM jobs n WHERE n.tenant = jobs.tenant AND n.action = jobs.action
        AND n.idempotency_key = jobs.idempotency_key AND n.rerun > jobs.rerun
    )
    AND NOT EXISTS (SELECT FROM events e WHERE e.job_id = jobs.id AND e.kind = 'erased')  -- nobody knows with what
  RETURNING id, last_seq, fence
), noted AS (
  INSERT INTO events (job_id, seq, kind, fence, data)
  SELECT id, last_seq, 'retried', fence, json_build_object('reason', CAST(:reason AS text),
    'who', CAST(:who AS text), 'via', CAST(:via AS text))
  FROM moved
)
SELECT id, pg_notify(:channel, '') FROM moved
""")


def retry(connection: Connection, tenant: str, job_id: UUID, *, reason: str, actor: Actor) -> bool:
    """Give a dead job one more attempt, due now, with its event and its act, in one transaction.

    Attempts that were spent stay so, crashes count anew, and a deadline that has passed holds no more.

    Args:
        connection: In autocommit.
        tenant: Whose job it is.
        job_id: The job.
        reason: Kept in the job's history, as is who says so.
        actor: Who says so.

    Returns:
        Whether it was dead, surely without an effect, and its key's newest; where not, nothing was written.
    """
    asked = {"id": job_id, "tenant": tenant, "reason": reason, "channel": WAKE_CHANNEL}
    with transaction_on(connection):
        row = connection.execute(RETRY, asked | {"who": actor.who, "via": actor.via}).one_or_none()
        if row is not None:
            note_act(connection, act_of(actor, tenant, "retry", job_id, reason=reason))
    return row is not None

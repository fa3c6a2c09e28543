"""Erasing what was said in a job: the words go, and that they were there stays, by their digests."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.acting import Actor
from producer.ledger.acts import act_of, note_act
from producer.ledger.engine import transaction_on
from producer.ledger.seals import ERASED
from producer.ledger.states import CLOSED, in_sql

# Whose fingerprint and key stay, so that the same is not done again because nobody remembers that it was asked for.
MARK = text(f"""
WITH closed AS (
  UPDATE jobs SET last_seq = last_seq + 1
  WHERE id = :id AND tenant = :tenant AND state IN ({in_sql(CLOSED)})
  RETURNING id, last_seq, tenant, conversation_id
), decided AS (
  UPDATE decisions d SET input = NULL, reasoning = NULL, params = '{{}}', result = NULL, error = NULL, repair = NULL
  FROM closed c WHERE d.job_id = c.id
), unsaid AS (
  UPDATE messages m SET content = '', tool_calls = NULL FROM closed c
  WHERE m.tenant = c.tenant AND m.conversation_id = c.conversation_id AND m.job_id = c.id
), unseen AS (
  UPDATE approvals a SET preview = NULL, preview_error = NULL FROM closed c WHERE a.job_id = c.id
), noted AS (
  INSERT INTO events (job_id, seq, kind, data)
  SELECT id, last_seq, 'erased', json_build_object('who', CAST(:who AS text), 'via', CAST(:via AS text),
    'reason', CAST(:reason AS text))
  FROM closed
)
SELECT last_seq FROM closed
""")
# Nothing else may be put there: a trigger holds the digest to the data that goes.
ERASE_EVENTS = text(f"""
UPDATE events e
SET data = CAST('{{"erased":"' || encode(sha256(convert_to(CAST(data AS text), 'UTF8')), 'hex') || '"}}' AS json)
WHERE job_id = :id AND seq < :before AND kind <> 'erased' AND data IS NOT NULL AND NOT {ERASED}
""")


def erase(connection: Connection, tenant: str, job_id: UUID, *, reason: str, actor: Actor) -> bool:
    """Erase what was said in a job that has ended, with an event and an act, in one transaction. Safe to repeat.

    Args:
        connection: The owner's, in autocommit: no other may change events, be it for this.
        tenant: Whose job it is.
        job_id: The job.
        reason: Kept, as is who says so.
        actor: Who says so.

    Returns:
        Whether it had ended; where not, nothing was written.
    """
    asked = {"id": job_id, "tenant": tenant, "who": actor.who, "via": actor.via, "reason": reason}
    with transaction_on(connection):
        seq = connection.execute(MARK, asked).scalar()
        if seq is None:
            return False
        connection.execute(ERASE_EVENTS, {"id": job_id, "before": seq})
        note_act(connection, act_of(actor, tenant, "erase", job_id, reason=reason))
    return True

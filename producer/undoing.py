"""Undoing a job: another job, of the action that its own declares for that, through every gate as any other."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.acting import Actor
from producer.catalogue import Actions, find
from producer.envelope import Envelope, Request
from producer.errors import JobNotUndoable
from producer.ledger.accept import Answer, accept, refuse_conflicts
from producer.ledger.acts import act_of, note_act
from producer.ledger.engine import transaction_on
from producer.ledger.reads import JobRecord
from producer.ledger.states import State
from producer.sealing import seal_by

WORD = "undo"
RESULT = "result"

NOTE = text(f"""
WITH moved AS (
  UPDATE jobs SET last_seq = last_seq + 1 WHERE id = :id AND tenant = :tenant AND state = '{State.SUCCEEDED}'
    AND NOT EXISTS (SELECT FROM events e WHERE e.job_id = jobs.id AND e.kind = 'erased')
  RETURNING id, last_seq
)
INSERT INTO events (job_id, seq, kind, data)
SELECT id, last_seq, 'undo_asked', json_build_object('job_id', CAST(:by AS text), 'who', CAST(:who AS text),
  'via', CAST(:via AS text), 'reason', CAST(:reason AS text))
FROM moved RETURNING job_id
""")


def seal_undo(known: Actions, record: JobRecord, actor: Actor, reason: str, *, queue: str) -> Envelope:
    """Return the job that takes another back.

    Who wants it undone is who asks for it: where people have to approve that, not he himself. Its key is of the other
    job's, so that nothing is taken back twice; one that came to nothing may be asked for again.

    Raises:
        JobNotUndoable: If the job has not succeeded, or its action declares nothing that takes it back.
        UnknownAction: If nobody has published what does.
        InvalidRequest: If that does not take what the job left.
    """
    if record.state is not State.SUCCEEDED:
        raise JobNotUndoable(record.id, f"it is {record.state}, and only what succeeded can be taken back")
    undo = find(known, record.action).policy.get(WORD)
    if undo is None:
        raise JobNotUndoable(record.id, f"the action {record.action} declares no undo=")
    request = Request(
        action=undo,
        params=_params(find(known, undo).params_schema, record),
        idempotency_key=f"{record.id}:{WORD}",
        user_id=actor.who,
        request_id=record.request_id,
        input={"undoes": str(record.id)},
        reasoning=reason,
        on_closed="rerun_if_failed",
    )
    return seal_by(known, request, tenant=record.tenant, queue=queue, parent_job_id=record.id)


def accept_undo(connection: Connection, envelope: Envelope, job_id: UUID, actor: Actor, reason: str) -> Answer:
    """Accept the job that takes another back, with an event of that one and the act, in one transaction.

    Raises:
        IdempotencyConflict: If its key stands for something else.
        JobNotUndoable: If the other job was erased, or has moved meanwhile; nothing was written.
    """
    with transaction_on(connection):
        (answer,) = accept(connection, [envelope], rings=True)
        refuse_conflicts([answer], [envelope])
        if answer.outcome == "created":
            said = {"by": str(answer.job_id), "who": actor.who, "via": actor.via, "reason": reason}
            noted = connection.execute(NOTE, {"id": job_id, "tenant": envelope.tenant} | said).one_or_none()
            if noted is None:
                raise JobNotUndoable(job_id, "what it did is erased, or it stands otherwise by now")
            act = act_of(actor, envelope.tenant, WORD, job_id, reason=reason, by=str(answer.job_id))
            note_act(connection, act)
    return answer


def _params(schema: dict[str, Any], record: JobRecord) -> dict[str, Any]:
    """Return what the undoing action takes of what the job was given and left."""
    has = record.params | {RESULT: record.result}
    return {name: has[name] for name in schema.get("properties", {}) if name in has}

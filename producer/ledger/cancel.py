"""Cancelling: at once where no worker owns the job, else a request that its worker answers."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.acting import Actor
from producer.ledger.acts import act_of, note_act
from producer.ledger.engine import transaction_on
from producer.ledger.states import LEASED, State, in_sql, looks_left, may_become

# By a statement of its own: one that waits for a row changes it as it was before, until the database notices; and a
# lease that is over by then, or not there yet, would be left with a state that it does not go with.
LOCK = text("SELECT FROM jobs WHERE id = :id AND tenant = :tenant FOR UPDATE")
CANCEL = text(f"""
WITH asked AS (
  SELECT id, CASE WHEN state IN ({in_sql(LEASED)}) THEN state
                  WHEN maybe_happened THEN '{State.IN_DOUBT}' ELSE '{State.CANCELLED}' END AS becomes
  FROM jobs
  WHERE id = :id AND tenant = :tenant AND (cancel_requested_at IS NULL OR state NOT IN ({in_sql(LEASED)}))
    AND state IN ({may_become(State.CANCELLED)}, '{State.RUNNING}')
), moved AS (
  UPDATE jobs j SET state = a.becomes, waiting_for = NULL, waiting_on = NULL,
    cancel_requested_at = coalesce(j.cancel_requested_at, clock_timestamp()),
    finished_at = CASE WHEN a.becomes = '{State.CANCELLED}' THEN clock_timestamp() END,
    looks_left = {looks_left("a.becomes")},
    due_at = CASE WHEN a.becomes = '{State.IN_DOUBT}' THEN statement_timestamp() ELSE j.due_at END,
    ring_at = CASE WHEN a.becomes = '{State.IN_DOUBT}' THEN statement_timestamp() ELSE j.ring_at END,
    last_seq = last_seq + 1
  FROM asked a WHERE j.id = a.id
  RETURNING j.id, j.last_seq, j.state
), noted AS (
  INSERT INTO events (job_id, seq, kind, data)
  SELECT id, last_seq, CASE WHEN state = '{State.CANCELLED}' THEN 'cancelled'
                             WHEN state = '{State.IN_DOUBT}' THEN 'in_doubt' ELSE 'cancel_requested' END,
         json_build_object('reason', CAST(:reason AS text), 'who', CAST(:who AS text), 'via', CAST(:via AS text))
  FROM moved
), withdrawn AS (  -- what people were asked, nobody wants to know any more
  UPDATE approvals p SET state = 'withdrawn', decided_at = coalesce(p.decided_at, clock_timestamp()),
    decided_why = 'the job was cancelled'
  FROM moved m WHERE p.job_id = m.id AND m.state = '{State.CANCELLED}' AND p.consumed_at IS NULL
    AND p.state IN ('pending', 'approved')
)
SELECT state FROM moved
""")

# For whom nothing moved: how it stands, so that asking again is answered as the first time.
STANDING = text("""
SELECT state, cancel_requested_at IS NOT NULL AS asked FROM jobs WHERE id = :id AND tenant = :tenant
""")

Cancelled = Literal["cancelled", "requested", "in_doubt", "too_late"]


def cancel(connection: Connection, tenant: str, job_id: UUID, *, reason: str | None, actor: Actor) -> Cancelled:
    """Cancel a job that nobody owns, or ask the worker that does; who and why is an event of the job, and an act.

    Returns:
        ``cancelled``; ``requested`` where a worker owns the job: it stops before the effect if it has not begun
        it, and otherwise the job ends as its attempt does; ``in_doubt`` where it was waiting to be tried again and
        an earlier attempt may have had its effect; ``too_late`` where it has ended otherwise, or is not there. Asking
        again gives the same answer, as long as the job stands so; one that its worker has given back is cancelled.
    """
    asked = {"id": job_id, "tenant": tenant}
    said = {**asked, "reason": reason, "who": actor.who, "via": actor.via}
    with transaction_on(connection):
        connection.execute(LOCK, asked)
        state = connection.execute(CANCEL, said).scalar()
        if state is not None:
            note_act(connection, act_of(actor, tenant, "cancel", job_id, reason=reason))
    if state is None:
        standing = connection.execute(STANDING, asked).one_or_none()
        if standing is None or not standing.asked or standing.state not in (*LEASED, State.CANCELLED, State.IN_DOUBT):
            return "too_late"
        state = standing.state
    answers: dict[str, Cancelled] = {State.CANCELLED: "cancelled", State.IN_DOUBT: "in_doubt"}
    return answers.get(state, "requested")

"""What time does to what waits for people: it is escalated, and it expires. Done by every worker's relay.

A job's row is locked first, as for a vote, and skipped where somebody has it: whoever votes in the same moment goes
first, and what he decided is not undone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.ledger.conversations import wake_turns
from producer.ledger.states import State
from worker.log import log

BATCH = 100

# The approval is looked at once more when it is changed: the lock may have been waited for while somebody decided it.
EXPIRE = text(f"""
WITH due AS MATERIALIZED (
  SELECT p.id, j.id AS job_id FROM approvals p JOIN jobs j ON j.id = p.job_id
  WHERE p.state = 'pending' AND p.expires_at <= statement_timestamp()
  ORDER BY p.expires_at LIMIT :batch FOR UPDATE OF j SKIP LOCKED
), expired AS (
  UPDATE approvals p SET state = 'expired', decided_at = clock_timestamp(), decided_why = 'nobody decided in time'
  FROM due d WHERE p.id = d.id AND p.state = 'pending' AND p.expires_at <= statement_timestamp()
  RETURNING p.id, p.job_id, p.rule, p.rule_version, p.expires_at
), moved AS (
  UPDATE jobs j SET state = '{State.EXPIRED}', finished_at = clock_timestamp(), last_seq = j.last_seq + 1
  FROM expired e WHERE j.id = e.job_id AND j.state = '{State.AWAITING_APPROVAL}'
  RETURNING j.id, j.last_seq, j.deadline_at, e.id AS approval, e.rule, e.rule_version, e.expires_at
)
INSERT INTO events (job_id, seq, kind, worker, data)
SELECT id, last_seq, 'approval_expired', :worker, json_build_object(
  'why', CASE WHEN deadline_at <= expires_at THEN 'deadline passed' ELSE 'nobody decided in time' END,
  'approval', approval, 'rule', rule, 'version', rule_version, 'expires_at', expires_at, 'to', '{State.EXPIRED}')
FROM moved
RETURNING job_id
""")
# With nobody named, anybody may decide, and more people need not be.
ESCALATE = text(f"""
WITH due AS MATERIALIZED (
  SELECT p.id, j.id AS job_id FROM approvals p JOIN jobs j ON j.id = p.job_id
  WHERE p.state = 'pending' AND p.escalated_at IS NULL AND p.escalate_at IS NOT NULL
    AND p.escalate_at <= statement_timestamp() AND j.state = '{State.AWAITING_APPROVAL}'
  ORDER BY p.escalate_at LIMIT :batch FOR UPDATE OF j SKIP LOCKED
), escalated AS (
  UPDATE approvals p SET escalated_at = clock_timestamp(),
    approvers = CASE WHEN p.approvers || p.roles = '{{}}' THEN p.approvers ELSE p.approvers || p.escalate_to END,
    roles = CASE WHEN p.approvers || p.roles = '{{}}' THEN p.roles ELSE p.roles || p.escalate_roles END
  FROM due d WHERE p.id = d.id AND p.state = 'pending' AND p.escalated_at IS NULL
  RETURNING p.*
), counted AS (
  UPDATE jobs j SET last_seq = j.last_seq + 1 FROM escalated e WHERE j.id = e.job_id
  RETURNING j.id, j.last_seq, e.id AS approval, e.rule, e.rule_version, e.approvers, e.roles
)
INSERT INTO events (job_id, seq, kind, worker, data)
SELECT id, last_seq, 'approval_escalated', :worker, json_build_object(
  'approval', approval, 'rule', rule, 'version', rule_version, 'approvers', approvers, 'roles', roles)
FROM counted
RETURNING job_id
""")


def sweep_approvals(
    connection: Connection, *, worker: str, announce: Callable[[list[UUID]], None] = lambda _: None
) -> int:
    """Expire and escalate at most 100 each, the longest overdue first; return how many.

    Args:
        connection: In autocommit: each batch is one transaction.
        worker: Named in the events.
        announce: Told which jobs have expired.
    """
    asked: dict[str, Any] = {"batch": BATCH, "worker": worker}
    expired = list(connection.execute(EXPIRE, asked).scalars())
    if expired:
        announce(expired)
        wake_turns(connection, expired)
    escalated = list(connection.execute(ESCALATE, asked).scalars())
    for job_id in expired:
        log.warning("approval.expired", job_id=str(job_id))
    for job_id in escalated:
        log.warning("approval.escalated", job_id=str(job_id))
    return max(len(expired), len(escalated))

"""The statements behind policies: what they said is written down, and approvals are found, and used up.

None of them is sent for a job that no policy is asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.ledger.approvals import DIGEST
from producer.ledger.engine import transaction_on
from producer.ledger.prepared import Prepared
from producer.ledger.states import State
from worker.attempt import Intent
from worker.json_text import as_json
from worker.statements import Granted, intend_within

# A job may be claimed many times for one attempt, since holds spend none: what a policy says again is not said twice.
REVIEW = Prepared(
    "review",
    f"""
WITH asked AS (
  SELECT * FROM json_to_recordset(:asked) AS a(id uuid, fence bigint, attempt int, notes json)
), mine AS (
  SELECT a.* FROM jobs j JOIN asked a USING (id, fence)
  WHERE j.lease_owner = :worker AND j.state = '{State.CLAIMED}' AND j.lease_expires_at > clock_timestamp()
  ORDER BY j.id FOR UPDATE OF j
), said AS (
  SELECT m.id, m.fence, m.attempt, n.value AS data, row_number() OVER (PARTITION BY m.id ORDER BY n.ordinality) AS nth
  FROM mine m CROSS JOIN LATERAL json_array_elements(m.notes) WITH ORDINALITY AS n
  WHERE CAST(n.value AS text) IS DISTINCT FROM (
    SELECT CAST(e.data AS text) FROM events e
    WHERE e.job_id = m.id AND e.kind = 'policy' AND e.attempt = m.attempt AND e.data ->> 'rule' = n.value ->> 'rule'
    ORDER BY e.seq DESC LIMIT 1
  )
), counted AS (
  UPDATE jobs j SET last_seq = j.last_seq + s.count
  FROM (SELECT id, CAST(count(*) AS int) AS count FROM said GROUP BY id) s WHERE j.id = s.id
  RETURNING j.id, j.last_seq - s.count AS before
), noted AS (
  INSERT INTO events (job_id, seq, kind, attempt, fence, worker, data)
  SELECT s.id, c.before + s.nth, 'policy', s.attempt, s.fence, :worker, s.data
  FROM said s JOIN counted c USING (id) ORDER BY s.id, s.nth
)
SELECT m.id, encode({DIGEST}, 'hex') AS digest, d.params, (
  SELECT json_agg(json_build_object(
    'id', p.id, 'rule', p.rule, 'version', p.rule_version, 'digest', encode(p.digest, 'hex'),
    'usable', p.consumed_at IS NOT NULL OR p.valid_until > clock_timestamp()) ORDER BY p.id)
  FROM approvals p WHERE p.job_id = m.id AND p.state = 'approved'
) AS approved
FROM mine m JOIN jobs j ON j.id = m.id JOIN decisions d ON d.job_id = m.id
""",
    asked="json",
    worker="text",
)

# With the intent, in its transaction, which has the job's row. What is not there any more, was another request's, or is
# out of time is not counted, and the intent is taken back. A job that has begun under it may go on: the approval is for
# this one job, whose attempts are one intent.
CONSUME = text(f"""
WITH wanted AS (
  SELECT p.id FROM approvals p JOIN jobs j ON j.id = p.job_id JOIN decisions d ON d.job_id = j.id
  WHERE p.id = ANY(:ids) AND p.job_id = :job_id AND p.state = 'approved' AND p.digest = {DIGEST}
    AND (p.consumed_at IS NOT NULL OR p.valid_until > clock_timestamp())
  ORDER BY p.id FOR UPDATE OF p
)
UPDATE approvals p SET consumed_at = coalesce(p.consumed_at, clock_timestamp()) FROM wanted w WHERE p.id = w.id
RETURNING p.id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What the policies said of an attempt.

    Attributes:
        attempt: The number of the attempt that they were asked for.
        notes: What each said, plain JSON: ``{"rule", "version", "verdict", "reason"}``.
    """

    job_id: UUID
    fence: int
    attempt: int
    notes: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """An approval of the job that stands.

    Attributes:
        usable: Whether the job has begun under it, or may still.
    """

    id: UUID
    rule: str
    version: int
    digest: str
    usable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """What the ledger says to that.

    Attributes:
        digest: Of the request as it is stored now.
        params: As they are stored now.
        approved: The approvals of it that stand, the oldest first.
    """

    digest: str
    params: Mapping[str, Any]
    approved: tuple[Approved, ...]


def review(connection: Connection, worker: str, reviews: Sequence[Review]) -> dict[UUID, Reviewed | None]:
    """Write down what policies said, and find what was approved; a job that has another owner is left out."""
    asked = [{"id": each.job_id, "fence": each.fence, "attempt": each.attempt, "notes": each.notes} for each in reviews]
    rows = REVIEW.run(connection, {"asked": as_json(asked), "worker": worker})
    return {row.id: _reviewed(row) for row in rows}


def intend_approved(
    connection: Connection, worker: str, lease_seconds: float, intents: Sequence[Intent]
) -> dict[UUID, Granted]:
    """Record intents and use up the approvals that they rest on: each with its own, in one transaction, or neither."""
    answers: dict[UUID, Granted] = {}
    for each in intents:
        answer = _intend_approved(connection, worker, lease_seconds, each)
        if answer is not None:
            answers[each.job_id] = answer
    return answers


def _intend_approved(connection: Connection, worker: str, lease_seconds: float, asked: Intent) -> Granted | None:
    try:
        with transaction_on(connection):
            granted = intend_within(connection, worker, lease_seconds, asked)
            if granted == "intended":
                _consume(connection, asked)
    except _NotApprovedError:
        return "unapproved"
    return granted


def _consume(connection: Connection, asked: Intent) -> None:
    ids = list(asked.approvals)
    if len(connection.execute(CONSUME, {"ids": ids, "job_id": asked.job_id}).all()) != len(set(ids)):
        raise _NotApprovedError


class _NotApprovedError(Exception):
    """Takes the intent back."""


def _reviewed(row: Any) -> Reviewed:
    approved = [Approved(**each | {"id": UUID(each["id"])}) for each in row.approved or ()]
    return Reviewed(digest=row.digest, params=row.params, approved=tuple(approved))

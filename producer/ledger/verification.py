"""What verifying the record asks of the ledger, beside its seals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.ledger.acts import NOBODY_BEFORE, SENT
from producer.ledger.seals import ERASED

UNSEALED = text("SELECT count(*) FROM events WHERE at >= coalesce(CAST(:horizon AS timestamptz), '-infinity')")

ACTS_CHAIN = text(f"""
SELECT a.n, a.act, a.target, a.hash,
  a.hash = sha256(coalesce(lag(a.hash) OVER (ORDER BY a.n), {NOBODY_BEFORE}) || {SENT}) AS follows
FROM acts a ORDER BY a.n
""")

# Jobs whose events are not numbered from 1 to what they count themselves; and events without a job.
ODD_HISTORIES = text(
    """
SELECT coalesce(j.id, e.job_id) AS id, j.last_seq, coalesce(e.events, 0) AS events, coalesce(e.last, 0) AS last
FROM (SELECT id, last_seq FROM jobs WHERE accepted_at >= coalesce(CAST(:since AS timestamptz), '-infinity')) j
FULL JOIN (
  SELECT job_id, count(*) AS events, max(seq) AS last FROM events
  WHERE :since IS NULL OR job_id IN (SELECT id FROM jobs WHERE accepted_at >= CAST(:since AS timestamptz))
  GROUP BY job_id
) e ON e.job_id = j.id
WHERE j.last_seq IS DISTINCT FROM e.events OR j.last_seq IS DISTINCT FROM e.last
""".replace(":since IS NULL", "CAST(:since AS timestamptz) IS NULL")
)

# Erasing is somebody's act, which is an event of the same job.
ERASED_UNSAID = text(f"""
SELECT e.job_id, e.seq FROM events e
WHERE {ERASED} AND e.at >= coalesce(CAST(:since AS timestamptz), '-infinity')
  AND NOT EXISTS (SELECT FROM events said WHERE said.job_id = e.job_id AND said.kind = 'erased' AND said.seq > e.seq)
ORDER BY e.job_id, e.seq
""")

# What a decision holds beside what its events say of it. The newest event that brings a result is the one that counts;
# it names none where a worker from before results had digests wrote it, as while a deploy is under way.
HISTORIES = text("""
SELECT j.id, j.action_version, encode(j.fingerprint, 'hex') AS fingerprint, CAST(d.params AS text) AS params,
  (SELECT e.data ->> 'fingerprint' FROM events e WHERE e.job_id = j.id AND e.seq = 1) AS accepted,
  (SELECT e.data ->> 'result_sha256' FROM events e
   WHERE e.job_id = j.id AND e.kind IN ('succeeded', 'degraded', 'superseded', 'verified', 'resolved')
   ORDER BY e.seq DESC LIMIT 1) AS settled,
  CASE WHEN d.result IS NOT NULL THEN encode(sha256(convert_to(CAST(d.result AS text), 'UTF8')), 'hex') END AS result,
  EXISTS (SELECT FROM events e WHERE e.job_id = j.id AND e.kind = 'erased') AS erased
FROM jobs j JOIN decisions d ON d.job_id = j.id
WHERE j.id > :after AND j.accepted_at >= coalesce(CAST(:since AS timestamptz), '-infinity')
ORDER BY j.id LIMIT :limit
""")
FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job with what its decision holds and what its events say of that; digests as hexadecimal digits.

    Attributes:
        version: Of the action.
        fingerprint: The job's own.
        params: As the decision has them, JSON.
        accepted: The fingerprint in its first event; None where that is erased or gone.
        settled: The digest of the result in the newest event that names one.
        result: The digest of the result that the decision has.
    """

    id: UUID
    version: int
    fingerprint: str
    params: str
    accepted: str | None
    settled: str | None
    result: str | None
    erased: bool


def job_rows(connection: Connection, since: datetime | None, *, limit: int) -> Iterator[JobRow]:
    """Yield every job accepted `since`, in the order of ids, `limit` at a time."""
    after = FIRST
    while batch := connection.execute(HISTORIES, {"since": since, "after": after, "limit": limit}).all():
        yield from (JobRow(*row) for row in batch)
        after = batch[-1].id

"""A true result that comes after a fallback stood in: the degraded job succeeds with it, in the same transaction.

It is brought by a job of its own, which the degraded one left behind and whose key names it (`true_result_key`). It may
succeed by its attempt, by a look or by a person's word, and in each case this is how its result gets there: the one
move out of ``degraded``.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy.engine import Connection

from producer.ledger.prepared import Prepared
from producer.ledger.states import State

WORD = "true-result"

# For a job ``{j}`` with its decision ``{d}``: the degraded job in whose place its result belongs; NULL where none.
SUPERSEDES = (
    f"CASE WHEN {{j}}.idempotency_key = concat({{d}}.parent_job_id, ':', '{WORD}') THEN {{d}}.parent_job_id END"
)

# What stood in is read as it was before this statement; the event keeps it.
SUPERSEDE = Prepared(
    "supersede",
    f"""
WITH came AS MATERIALIZED (
  SELECT c.id, c.tenant, c.action, d.result, {SUPERSEDES.format(j="c", d="d")} AS supersedes
  FROM jobs c JOIN decisions d ON d.job_id = c.id WHERE c.id = ANY(:ids) AND c.state = '{State.SUCCEEDED}'
), degraded AS MATERIALIZED (
  SELECT j.id, came.id AS by, came.result FROM came JOIN jobs j ON j.id = came.supersedes
  WHERE j.tenant = came.tenant AND j.action = came.action AND j.state = '{State.DEGRADED}'
  ORDER BY j.id FOR UPDATE OF j
), moved AS (
  UPDATE jobs j SET state = '{State.SUCCEEDED}', finished_at = clock_timestamp(), last_seq = j.last_seq + 1
  FROM degraded g WHERE j.id = g.id
  RETURNING g.*, j.last_seq, j.degraded_by
), stood AS (
  SELECT m.id, d.result AS fallback FROM moved m JOIN decisions d ON d.job_id = m.id
), decided AS (
  UPDATE decisions d SET result = m.result, error = NULL FROM moved m WHERE d.job_id = m.id
), noted AS (
  INSERT INTO events (job_id, seq, kind, worker, data)
  SELECT m.id, m.last_seq, 'superseded', :worker,
         json_build_object('by', m.by, 'rule', m.degraded_by, 'fallback', s.fallback,
           'result_sha256', encode(sha256(convert_to(CAST(m.result AS text), 'UTF8')), 'hex'))
  FROM moved m JOIN stood s USING (id)
)
SELECT id FROM moved
""",
    ids="uuid[]",
    worker="text",
)


def true_result_key(job_id: UUID) -> str:
    """Return the key of the job that brings the true result of a degraded one."""
    return f"{job_id}:{WORD}"


def supersede(connection: Connection, job_ids: Collection[UUID], *, worker: str | None) -> list[UUID]:
    """Have the results of jobs that have just succeeded take the place of the fallbacks that they were to replace.

    Args:
        connection: In the transaction by which they succeeded.
        job_ids: The jobs; one that replaces nothing, or whose place is taken, is left out.
        worker: Named in the event; None where a person's word made them succeed.

    Returns:
        The jobs that were degraded and are not any more.
    """
    return [row.id for row in SUPERSEDE.run_plain(connection, {"ids": list(job_ids), "worker": worker})]

"""Rescue: every worker takes over the jobs of workers that fell silent. No leader, so nobody's death stops it.

The lease is the only evidence, and the database's clock the only judge. Raising the fence comes first in meaning:
whatever the silent worker still writes names an older one and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.ledger.conversations import wake_turns
from producer.ledger.states import CLOSED, LEASED, State, in_sql, looks_left
from worker.log import log
from worker.meter import meter

BATCH = 100

# Died before the intent: nothing happened, so it waits again. Died after it: by the effect class, which the intent
# wrote down as `repeatable_until` (NULL is for ever). Over the cap it stays down: dead where the effect cannot have
# happened, in doubt where it may have.
RESCUE = text(f"""
WITH silent AS (
  SELECT id, state AS was, lease_owner AS was_owner,
         maybe_happened OR (state = '{State.RUNNING}' AND effect <> 'pure') AS doubtful,
         state = '{State.RUNNING}' AND repeatable_until <= clock_timestamp() AS beyond_repeat,
         crashes + 1 >= :cap AS capped
  FROM jobs WHERE state IN ({in_sql(LEASED)}) AND lease_expires_at < clock_timestamp()
  ORDER BY lease_expires_at LIMIT :batch FOR UPDATE SKIP LOCKED
), judged AS (
  SELECT *, CASE WHEN beyond_repeat OR (capped AND doubtful) THEN '{State.IN_DOUBT}'
                 WHEN capped THEN '{State.DEAD}' ELSE '{State.WAITING}' END AS becomes
  FROM silent
), moved AS (
  UPDATE jobs j SET state = s.becomes, waiting_for = CASE WHEN s.becomes = '{State.WAITING}' THEN 'worker' END,
    fence = fence + 1, crashes = crashes + 1, maybe_happened = s.doubtful,
    looks_left = {looks_left("s.becomes")},
    -- Its effect may have left until the lease ran out. How long that takes to arrive, its action has published.
    quiet_at = CASE WHEN j.quiet_at IS NULL OR s.was <> '{State.RUNNING}' THEN j.quiet_at
                    ELSE greatest(j.quiet_at, statement_timestamp() + make_interval(secs => (
                      SELECT CAST(policy ->> 'verify_after' AS double precision) FROM actions WHERE name = j.action
                    ))) END,
    lease_owner = NULL, lease_expires_at = NULL, due_at = statement_timestamp(), ring_at = statement_timestamp(),
    finished_at = CASE WHEN s.becomes IN ({in_sql(CLOSED)}) THEN clock_timestamp() END, last_seq = last_seq + 1
  FROM judged s WHERE j.id = s.id
  RETURNING j.id, j.last_seq, j.fence, j.attempt, j.crashes, s.was, s.was_owner, s.becomes
), decided AS (
  UPDATE decisions d SET error = json_build_object('type', 'WorkerLost', 'traceback', '', 'message',
    CASE m.crashes WHEN 1 THEN format('worker %s fell silent with this job', m.was_owner)
      ELSE format('workers fell silent with this job %s times, the last was %s', m.crashes, m.was_owner) END)
  FROM moved m WHERE d.job_id = m.id AND m.becomes <> '{State.WAITING}'
), noted AS (
  INSERT INTO events (job_id, seq, kind, attempt, fence, worker, data)
  SELECT id, last_seq, 'rescued', attempt, fence, :worker,
         json_build_object('from', was, 'to', becomes, 'silent', was_owner, 'crashes', crashes) FROM moved
)
SELECT id, was, becomes, was_owner, crashes FROM moved
""")


def rescue(
    connection: Connection, *, worker: str, crash_cap: int, announce: Callable[[list[UUID]], None] = lambda _: None
) -> int:
    """Take over at most 100 jobs whose lease ran out, the longest silent first; return how many.

    Args:
        connection: In autocommit: the batch is one transaction.
        worker: Named in the events.
        crash_cap: How many workers a job may take down before it is left alone.
        announce: Told which of the jobs are not tried again.
    """
    rows = connection.execute(RESCUE, {"batch": BATCH, "worker": worker, "cap": crash_cap}).all()
    ended = [row.id for row in rows if row.becomes != State.WAITING]
    announce(ended)
    wake_turns(connection, ended)
    for row in rows:
        meter().rescued(row.becomes)
        log.warning(
            "job.rescued",
            job_id=str(row.id),
            was=row.was,
            becomes=row.becomes,
            silent_worker=row.was_owner,
            crashes=row.crashes,
        )
    return len(rows)

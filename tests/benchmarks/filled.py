"""A ledger in which many finished jobs lie, as a month of work leaves them: same rows, same indexes, vacuumed.

The job, its decision, its first event and its last; of each tenth job the claim, too. All that is in between would make
it half as large again, and no statement on a job's way reads another job's events.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from tests.benchmarks.stage import Ground, Stage

CHUNK = 50_000
DAYS = 30
TABLES = ("jobs", "decisions", "events")
# Foreign keys are true by construction and not looked up; nothing else is left out. A power failure here costs a run.
SESSION = "SET session_replication_role = replica; SET synchronous_commit = off; SET work_mem = '64MB'"
# Ids are in the order of time, keys and fingerprints are not.
FILL = """
WITH made AS MATERIALIZED (
  SELECT n, noise, at, CAST(lpad(to_hex(CAST(extract(epoch FROM at) * 1000 AS bigint)), 12, '0')
                            || '7' || substr(noise, 1, 3) || '8' || substr(noise, 4, 15) AS uuid) AS id
  FROM (
    SELECT n, md5(CAST(n AS text)) AS noise,
           now() - interval '1 hour' - make_interval(days => {days}) * (1 - n / {count}::float8) AS at
    FROM generate_series({first}, {last}) AS n
  ) AS numbered
), accepted AS (
  INSERT INTO jobs (id, tenant, action, action_version, idempotency_key, key_derived, fingerprint, state, queue,
    priority, traceparent, accepted_at, due_at, ring_at, attempt, fence, effect, finished_at, last_seq)
  SELECT id, 'default', 'bench.pure', 1, CAST(md5(noise) AS uuid), false, decode(noise || noise, 'hex'), 'succeeded',
    'actions', 5, '00-' || noise || '-' || substr(noise, 1, 16) || '-01', at, at, at + interval '2 s', 1, 1, 'pure',
    at + interval '1 s', 4
  FROM made
), decided AS (
  INSERT INTO decisions (job_id, request_id, action, params, decided_at, result, latency_ms)
  SELECT id, id, 'bench.pure', json_build_object('number', n), at, to_json(n), 0.5 FROM made
)
INSERT INTO events (job_id, seq, at, kind, attempt, fence, worker, data)
SELECT id, seq, at + interval '1 s' * (seq - 1) / 3, kind, attempt, fence, worker,
  CASE seq WHEN 1 THEN json_build_object('fingerprint', noise || noise, 'request_id', id, 'due_at', at)
           ELSE json_build_object('why', 'succeeded') END
FROM made, (VALUES (1, 'accepted', NULL, NULL, NULL), (4, 'succeeded', 1, 1, 'bench:1'))
  AS history(seq, kind, attempt, fence, worker)
"""
# VACUUM makes known what room is left in each page, and claims take it up before the table grows, each in a page of its
# own, which is logged as a whole. What one claim takes up, fourteen jobs have left: most of the time there is none.
FILL_ROOM = """
INSERT INTO events (job_id, seq, at, kind, attempt, fence, worker)
SELECT id, 2, accepted_at + interval '1 s' / 3, 'claimed', 1, 1, 'bench:1' FROM jobs
WHERE get_byte(uuid_send(id), 15) % 10 = 0
"""
GIB = "SELECT pg_database_size(current_database()) / 1024.0 ^ 3"


@contextmanager
def filled(ground: Ground, jobs: int) -> Iterator[Stage]:
    """Make a ledger with so many finished jobs in it, all written to disk, and drop it afterwards."""
    with ground.database() as url:
        stage = ground.on(url)
        chunks = (
            FILL.format(days=DAYS, count=jobs, first=first, last=min(jobs, first + CHUNK - 1))
            for first in range(1, jobs + 1, CHUNK)
        )
        _spread(partial(_execute, stage), chunks)
        vacuums = [f"VACUUM (ANALYZE) {table}" for table in TABLES]
        _spread(partial(_execute, stage), vacuums)
        _execute(stage, FILL_ROOM)
        _spread(partial(_execute, stage), vacuums)
        yield stage


def size_gib(stage: Stage) -> float:
    """Return how large a stage's database is."""
    return float(stage.query(GIB)[0][0])


def _spread(work: Callable[[str], None], statements: Iterable[str]) -> None:
    """Have one connection for each core execute statements, about in their order, which keeps the indexes dense."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        for _ in threads.map(work, statements):
            pass


def _execute(stage: Stage, statement: str) -> None:
    connection = stage.connect()
    try:
        with connection.cursor() as cursor:
            cursor.execute(SESSION)
            cursor.execute(statement)
    finally:
        connection.close()

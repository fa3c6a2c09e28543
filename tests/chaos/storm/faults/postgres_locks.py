"""Faults within Postgres: statements that take longer, rows and tables that somebody else has locked, deadlocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg2

from tests.chaos.patience import NotReached, until
from tests.chaos.storm.faults.postgres import POSTGRES
from tests.chaos.storm.notes import Strike
from tests.chaos.storm.stage import Stage

LOCKED_ROWS = 10
LOOK_SECONDS = 0.02
BUSY_SECONDS = 3.0
# Whoever waits for so long looks whether it is a deadlock: before a worker's own patience for a lock is over.
DEADLOCK_MILLISECONDS, OUR_MILLISECONDS = 120, 5_000
DEADLOCK_TRIES, TRY_SECONDS = 12, 0.6
MEND_SECONDS = 30.0

SLOWER = """
CREATE OR REPLACE FUNCTION storm_slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_sleep(0.25); RETURN NULL; END $$;
SET lock_timeout = '3s';
DROP TRIGGER IF EXISTS storm_slow ON jobs;
CREATE TRIGGER storm_slow AFTER INSERT OR UPDATE ON jobs FOR EACH STATEMENT EXECUTE FUNCTION storm_slow()
"""
NO_SLOWER = "SET lock_timeout = '3s'; DROP TRIGGER IF EXISTS storm_slow ON jobs"
SLEEPING = "SELECT count(*) AS found FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
WAITING_FOR = "SELECT count(*) AS found FROM pg_stat_activity WHERE %(pid)s = ANY(pg_blocking_pids(pid))"
ON_THEIR_WAY = """
SELECT id, state FROM jobs WHERE state IN ('claimed', 'running', 'queued', 'waiting')
ORDER BY state IN ('claimed', 'running') DESC, md5(id::text) LIMIT %(most)s FOR UPDATE SKIP LOCKED
"""
DECISIONS = """
SELECT job_id FROM decisions WHERE job_id IN (SELECT id FROM jobs WHERE state = 'running' LIMIT 20)
FOR UPDATE SKIP LOCKED
"""
THEIR_JOBS = "SELECT id FROM jobs WHERE id = ANY(%(ids)s::uuid[]) ORDER BY id FOR UPDATE"
DEADLOCKS = "SELECT deadlocks AS found FROM pg_stat_database WHERE datname = current_database()"


def slow(stage: Stage, strike: Strike) -> bool | None:
    """Have every statement that changes a job sleep."""
    strike.on(POSTGRES)
    try:
        stage.ask(SLOWER)
        return _seen(stage, SLEEPING, {}, strike.planned.seconds)
    finally:
        until(lambda: _mended(stage, NO_SLOWER), seconds=MEND_SECONDS, what="the end of the trigger")


def rows(stage: Stage, strike: Strike) -> bool | None:
    """Lock some rows of jobs on their way."""
    with _transaction(stage) as (cursor, pid):
        latest = time.monotonic() + BUSY_SECONDS
        while not _lock_some(cursor) and time.monotonic() < latest:
            cursor.execute("ROLLBACK; BEGIN")  # none of them had a worker, who would have felt it
            time.sleep(LOOK_SECONDS)
        strike.on(POSTGRES)
        return _seen(stage, WAITING_FOR, {"pid": pid}, strike.planned.seconds)


def _lock_some(cursor: Any) -> bool:
    """Lock rows; return whether a worker has one of these jobs, and so will have something to write."""
    cursor.execute(ON_THEIR_WAY, {"most": LOCKED_ROWS})
    return any(state in ("claimed", "running") for _, state in cursor.fetchall())


def table(stage: Stage, strike: Strike) -> bool | None:
    """Lock the table of jobs, as a careless migration does."""
    with _transaction(stage) as (cursor, pid):
        cursor.execute("SET lock_timeout = '5s'")
        strike.on(POSTGRES)
        cursor.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        return _seen(stage, WAITING_FOR, {"pid": pid}, strike.planned.seconds)


def deadlock(stage: Stage, strike: Strike) -> bool | None:
    """Lock decisions first and then their jobs, where workers go the other way; they are those who give up."""
    before = _found(stage, DEADLOCKS, {})
    strike.on(POSTGRES)
    stage.ask(f"ALTER SYSTEM SET deadlock_timeout = '{DEADLOCK_MILLISECONDS}ms'")
    stage.ask("SELECT pg_reload_conf()")
    try:
        for _ in range(DEADLOCK_TRIES):
            _cross(stage)
            if _found(stage, DEADLOCKS, {}) > before:
                return True
    finally:
        stage.ask("ALTER SYSTEM RESET deadlock_timeout")
        stage.ask("SELECT pg_reload_conf()")
    time.sleep(1.0)  # the statistics come in late
    return _found(stage, DEADLOCKS, {}) > before


def _cross(stage: Stage) -> None:
    with _transaction(stage) as (cursor, pid):
        cursor.execute(f"SET deadlock_timeout = '{OUR_MILLISECONDS}ms'; SET lock_timeout = '2s'")
        cursor.execute(DECISIONS)
        ids = [str(row[0]) for row in cursor.fetchall()]
        try:
            until(lambda: ids and _found(stage, WAITING_FOR, {"pid": pid}), seconds=TRY_SECONDS, what="a worker")
            cursor.execute(THEIR_JOBS, {"ids": ids})
        except (NotReached, psycopg2.Error):
            return


@contextmanager
def _transaction(stage: Stage) -> Iterator[tuple[Any, int]]:
    """Give a cursor within a transaction that is rolled back, and its session's process."""
    with stage.connection() as own, own.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            yield cursor, own.get_backend_pid()
        finally:
            if not own.closed:
                cursor.execute("ROLLBACK")


def _seen(stage: Stage, query: str, parameters: Mapping[str, Any], seconds: float) -> bool:
    """Look for so long whether the query ever counts somebody."""
    until_then, seen = time.monotonic() + seconds, 0
    with stage.connection() as own, own.cursor() as cursor:
        while time.monotonic() < until_then:
            cursor.execute(query, parameters)
            seen += cursor.fetchone()[0]
            time.sleep(LOOK_SECONDS)
    return seen > 0


def _found(stage: Stage, query: str, parameters: Mapping[str, Any]) -> int:
    return int(stage.ask(query, parameters)[0]["found"])


def _mended(stage: Stage, statement: str) -> bool:
    try:
        stage.ask(statement)
    except psycopg2.Error:
        return False
    return True


FAULTS: Mapping[str, Callable[[Stage, Strike], bool | None]] = {
    "postgres_slow": slow,
    "postgres_locks": rows,
    "postgres_table_lock": table,
    "postgres_deadlock": deadlock,
}

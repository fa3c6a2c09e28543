"""What the ledger says: every row of one tenant, read as the model has it; and what only the tests may do to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.ledger.states import LEASED, RINGABLE, State, in_sql
from tests.integration.ledger_model.rows import Event, Row

JOBS = text("""
SELECT j.*, encode(j.fingerprint, 'hex') AS digest, d.result, d.error ->> 'type' AS error_type, d.tokens_in
FROM jobs j JOIN decisions d ON d.job_id = j.id WHERE j.tenant = :tenant ORDER BY j.id
""")
EVENTS = text("""
SELECT e.job_id, e.seq, e.kind, e.at, e.attempt, e.fence, e.worker, e.data ->> 'to' AS went
FROM jobs j JOIN events e ON e.job_id = j.id WHERE j.tenant = :tenant ORDER BY e.job_id, e.seq
""")
OTHERWISE = {"key", "fingerprint", "state", "error", "events"}
AS_STORED = [field.name for field in fields(Row) if field.compare and field.name not in OTHERWISE]

# A crash takes back claims and intents alone, so these are the columns that it changes.
FORGET = text("""
UPDATE jobs SET state = :state, waiting_for = :waiting_for, attempt = :attempt, fence = :fence, effect = :effect,
  repeatable_until = :repeatable_until, lease_owner = :lease_owner, lease_expires_at = :lease_expires_at,
  quiet_at = :quiet_at, last_seq = :last_seq WHERE id = :id
""")
FORGET_EVENTS = text("DELETE FROM events WHERE job_id = :id AND seq > :last_seq")
# What other examples left behind must not be due, late or silent in this one.
PUT_AWAY = text(f"""
UPDATE jobs SET state = '{State.REJECTED}', waiting_for = NULL, lease_owner = NULL, lease_expires_at = NULL,
  looks_left = NULL
WHERE state IN ({in_sql(RINGABLE | LEASED)}) OR looks_left > 0
""")


def look(connection: Connection, tenant: str) -> dict[UUID, Row]:
    """Return every job of a tenant with its history; break where a history has gaps or is not the row's."""
    events = connection.execute(EVENTS, {"tenant": tenant}).all()
    histories = {job_id: list(lines) for job_id, lines in groupby(events, key=lambda line: line.job_id)}
    return {row.id: _row(row, histories.get(row.id, [])) for row in connection.execute(JOBS, {"tenant": tenant})}


def forget(connection: Connection, rows: Iterable[Row]) -> None:
    """Put the jobs back to how they stood, as a crash of Postgres does."""
    connection.execute(text("SET session_replication_role = replica"))  # past the triggers
    for row in rows:
        stood = {name: getattr(row, name) for name in Row.__slots__} | {"last_seq": len(row.events)}
        connection.execute(FORGET, stood)
        connection.execute(FORGET_EVENTS, stood)
    connection.execute(text("SET session_replication_role = origin"))


def put_others_away(connection: Connection) -> None:
    """Leave nothing behind that anybody's statements would find."""
    connection.execute(PUT_AWAY)


def _row(stored: Any, lines: list[Any]) -> Row:
    seqs = [line.seq for line in lines]
    assert seqs == list(range(1, stored.last_seq + 1)), f"the history of {stored.state} has {seqs}"
    events = [Event(line.kind, line.at, line.attempt, line.fence, line.worker, line.went) for line in lines]
    as_stored = {name: getattr(stored, name) for name in AS_STORED}
    return Row(
        key=stored.idempotency_key,
        fingerprint=stored.digest,
        state=State(stored.state),
        error=stored.error_type,
        events=events,
        **as_stored,
    )

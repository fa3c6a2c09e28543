"""With a million finished jobs in the ledger, no statement on a job's way scans a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, TextClause, text
from sqlalchemy.engine import Connection

from producer import Settings
from producer.ledger import accept, cancel, conversations, reads, resolve, schedules
from producer.ledger.engine import open_engine
from producer.ledger.prepared import Prepared
from worker import doubt_statements, relay, rescue, statements, turns

MILLION = 1_000_000
ON_THEIR_WAY = 200
JOB = "00000000-0000-7000-8000-000000000001"

FILL = f"""
INSERT INTO jobs (id, tenant, action, action_version, idempotency_key, key_derived, fingerprint, state, waiting_for,
  queue, priority, traceparent, due_at, ring_at, lease_expires_at, effect, deadline_at, conversation_id)
SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'default', 'test.add', 1, 'key-' || n, false,
  sha256(n::text::bytea), state, CASE state WHEN 'waiting' THEN 'retry' END, 'actions', 5, '00-0-0-00',
  clock_timestamp(), clock_timestamp(), CASE WHEN state IN ('claimed', 'running') THEN clock_timestamp() END, 'pure',
  CASE WHEN n % 10 = 0 THEN clock_timestamp() END, CASE WHEN n % 2 = 0 THEN 'conversation-' || n % 1000 END
FROM (SELECT n, CASE WHEN n > {ON_THEIR_WAY} THEN (ARRAY['succeeded', 'succeeded', 'failed', 'cancelled'])[n % 4 + 1]
             ELSE (ARRAY['queued', 'waiting', 'claimed', 'running'])[n % 4 + 1] END AS state
      FROM generate_series(1, {MILLION}) n) made;
INSERT INTO decisions (job_id, request_id, action, params)
SELECT id, 'request-' || (row_number() OVER () / 4), 'test.add', '{{}}' FROM jobs;
INSERT INTO conversations (tenant, id, turn_of) SELECT 'default', conversation_id, max(id::text)::uuid FROM jobs
WHERE conversation_id IS NOT NULL GROUP BY conversation_id;
INSERT INTO messages (tenant, conversation_id, seq, role, content, job_id)
SELECT tenant, conversation_id, row_number() OVER (PARTITION BY conversation_id), 'user', 'hello', id FROM jobs
WHERE conversation_id IS NOT NULL;
INSERT INTO events (job_id, seq, kind) SELECT id, seq, 'accepted' FROM jobs, generate_series(1, 2) seq;
VACUUM ANALYZE jobs; VACUUM ANALYZE decisions; VACUUM ANALYZE events;
VACUUM ANALYZE conversations; VACUUM ANALYZE messages;
INSERT INTO schedules (id, tenant, name, action, params, every, zone, missed, priority, declared_by, version, next_tick)
SELECT gen_random_uuid(), 'default', 's' || n, 'test.add', '{{}}', 3600, 'UTC', 'latest', 5, 'person', 1,
  clock_timestamp() + make_interval(secs => n - 50) FROM generate_series(1, 10000) n;
VACUUM ANALYZE schedules;
"""

ASKED = json.dumps(
    [
        {
            "ordinal": 0,
            "id": JOB,
            "tenant": "default",
            "action": "test.add",
            "action_version": 1,
            "idempotency_key": "new",
            "key_derived": False,
            "fingerprint": "00" * 32,
            "params": "{}",
            "request_id": "r",
            "traceparent": "00-0-0-00",
            "queue": "actions",
            "priority": 5,
            "on_closed": "replay",
        }
    ]
)
INTENDED = json.dumps([{"id": JOB, "fence": 1, "effect": "pure", "repeat_seconds": None, "data": {}}])
CLAIMED = {"ids": [UUID(JOB)], "actions": ["test.add"], "versions": [1], "worker": "w", "lease": 30}
SETTLED = json.dumps(
    [{"id": JOB, "fence": 1, "was": "running", "becomes": "succeeded", "unspent": 0, "kind": "succeeded"}]
)
LEASES = {"ids": [UUID(JOB)], "fences": [1]}
CONVERSATIONS = {"tenants": ["default"], "conversations": ["conversation-2"]}
SAID = json.dumps(
    [{"job_id": JOB, "tenant": "default", "conversation_id": "conversation-2", "ordinal": 1, "role": "user"}]
)
TAKEN_UP = {"ids": [UUID(JOB)], "actions": ["test.add"], "versions": [1], "seconds": [30.0]}
RULED = json.dumps([{"id": JOB, "fence": 1, "attempt": 1, "becomes": "in_doubt", "absent": False, "data": {}}])

ADVANCED = {"id": [UUID(JOB)], "next_tick": [datetime.now(UTC)], "last_tick": [None], "last_job_id": [None]}
ADVANCED |= {"last_error": ["why"]}

STATEMENTS: dict[str, tuple[TextClause | Prepared, dict[str, Any]]] = {
    "accept": (accept.ACCEPT, {"asked": ASKED, "rings": True, "patience": 2}),
    "accept_new": (
        accept.ACCEPT_NEW,
        {**dict.fromkeys(accept.COLUMNS), **json.loads(ASKED)[0], "rings": True, "patience": 2},
    ),
    "note_replays": (accept.NOTE_REPLAYS, {"ids": [UUID(JOB)], "noted": 10}),
    "cancel": (cancel.CANCEL, {"id": JOB, "tenant": "default", "reason": None}),
    "resolve": (
        resolve.RESOLVE,
        {"id": JOB, "tenant": "default", "verdict": "retry", "becomes": "waiting", "again": True, "happened": False}
        | {"result": None, "reason": "because", "who": "ada", "channel": "c"},
    ),
    "job_by_id": (reads.JOB_BY_ID, {"id": JOB, "tenant": "default"}),
    "job_by_key": (reads.JOB_BY_KEY, {"tenant": "default", "action": "test.add", "key": "key-5"}),
    "jobs_of_request": (reads.JOBS_OF_REQUEST, {"tenant": "default", "request_id": "request-5"}),
    "states_of": (reads.STATES_OF, {"ids": [UUID(JOB)], "tenant": "default"}),
    "events_of": (reads.EVENTS_OF, {"id": JOB}),
    "claim": (statements.CLAIM, CLAIMED),
    "intend": (statements.INTEND, {"asked": INTENDED, "worker": "w", "lease": 30, "pure": False}),
    "settle": (statements.SETTLE, {"asked": SETTLED, "worker": "w"}),
    "renew": (statements.RENEW, {"ids": [UUID(JOB)], "fences": [1], "worker": "w", "lease": 30}),
    "take_up": (doubt_statements.TAKE_UP, TAKEN_UP),
    "rule": (doubt_statements.RULE, {"asked": RULED, "worker": "w"}),
    "due": (relay.DUE, {"batch": 500}),
    "looked_at": (relay.LOOKED_AT, {"ids": [UUID(JOB)], "seconds": [2.0]}),
    "expire": (relay.EXPIRE, {"batch": 500, "worker": "w"}),
    "conversation": (conversations.CONVERSATION, {"tenant": "default", "id": "conversation-2"}),
    "waiting_turns": (conversations.WAITING, {"tenant": "default", "id": "conversation-2", "limit": 100}),
    "messages": (conversations.MESSAGES, {"tenant": "default", "id": "conversation-2", "limit": 100, "bytes": 1 << 20}),
    "wake_turns": (conversations.WAKE_TURNS, {"ids": [UUID(JOB)], "channel": "c"}),
    "lock_conversations": (turns.LOCK_CONVERSATIONS, LEASES | CONVERSATIONS),
    "take_turns": (turns.TAKE_TURNS, LEASES | {"worker": "w"}),
    "next_turns": (turns.NEXT_TURNS, CONVERSATIONS | {"patience": 2}),
    "append": (turns.APPEND, {"asked": SAID}),
    "next": (schedules.NEXT, {"aside": [UUID(JOB)]}),
    "due_schedules": (schedules.DUE, {"batch": 100, "aside": [UUID(JOB)]}),
    "advance": (schedules.ADVANCE, ADVANCED),
    "schedule_by_name": (schedules.BY_NAME, {"tenant": "default", "name": "s5"}),
    "rescue": (rescue.RESCUE, {"batch": 100, "worker": "w", "cap": 3}),
}


@pytest.fixture(scope="module")
def million(module_settings: Settings) -> Iterator[Engine]:
    engine = open_engine(module_settings.database_url, connections=1, name="tests")
    with engine.connect() as connection:
        connection.execute(text("SET statement_timeout = 0; SET synchronous_commit = off"))
        for statement in filter(str.strip, FILL.split(";")):
            connection.execute(text(statement))
    yield engine
    engine.dispose()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_on_a_jobs_way_scans_a_table_of_a_million_jobs(million: Engine, name: str) -> None:
    statement, parameters = STATEMENTS[name]
    with million.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        transaction = connection.begin()
        explained = explain(connection, statement, parameters)
        transaction.rollback()
    nodes = list(_nodes(explained[0]["Plan"]))
    scanned = [node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"]
    assert scanned == []
    # An index read from end to end is a scan by another name.
    unbounded = [n["Index Name"] for n in nodes if n["Node Type"].startswith("Index") and not _is_bounded(n)]
    assert unbounded == []


def explain(connection: Connection, statement: TextClause | Prepared, parameters: dict[str, Any]) -> Any:
    """Return the plan that the statement really runs by: for a prepared one, the plan that was kept."""
    if isinstance(statement, Prepared):
        statement.prepare(connection)
        execute = f"EXECUTE {statement.name} ({', '.join(f':{name}' for name in statement.order)})"
        return connection.execute(text(f"EXPLAIN (FORMAT JSON) {execute}"), parameters).scalar_one()
    return connection.execute(text(f"EXPLAIN (FORMAT JSON) {statement.text}"), parameters).scalar_one()


def _is_bounded(node: dict[str, Any]) -> bool:
    """Whether it looks something up, or walks one of the partial indexes, which hold only jobs on their way.

    Or takes the first of the schedules in the order of their ticks.
    """
    return "Index Cond" in node or node["Index Name"].startswith(("jobs_to_", "schedules_to_"))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


@pytest.mark.parametrize("name", ["accept", "claim", "intend", "settle", "renew", "take_up", "rule"])
def test_a_plan_kept_from_an_empty_ledger_looks_jobs_up_by_an_unique_index(engine: Engine, name: str) -> None:
    # It is kept for as long as the connection lives, and the ledger grows meanwhile.
    statement, parameters = STATEMENTS[name]
    with engine.connect() as connection:
        explained = explain(connection, statement, parameters)
    nodes = _nodes(explained[0]["Plan"])
    scans = [n for n in nodes if n.get("Relation Name") == "jobs" and n["Node Type"] != "ModifyTable"]
    assert scans
    by = {"accept": "jobs_tenant_action_idempotency_key_rerun_key"}.get(name, "jobs_pkey")
    assert {scan.get("Index Name") for scan in scans} == {by}
    assert all("Index Cond" in scan for scan in scans)

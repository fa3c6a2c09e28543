"""With a million finished jobs in the ledger, no statement on a job's way scans a table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, TextClause, text
from sqlalchemy.engine import Connection

from producer import Settings
from producer.ledger import (
    accept,
    approvals,
    cancel,
    conversations,
    deciding,
    gate_standing,
    glance,
    keys,
    overview,
    reads,
    resolve,
    retry,
    schedules,
    seals,
    superseding,
    tokens,
)
from producer.ledger import breakers as ledger_breakers
from producer.ledger import budgets as ledger_budgets
from producer.ledger.engine import open_engine
from producer.ledger.prepared import PLAN_ONCE, Prepared
from producer.ledger.states import State
from worker import (
    alert_looks,
    approval_sweep,
    budget_pruner,
    budget_statements,
    doubt_statements,
    forgotten,
    policy_statements,
    relay,
    rescue,
    statements,
    turns,
)

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
INSERT INTO schedules (id, tenant, name, action, params, every, zone, missed, priority, declared_by, version, next_tick)
SELECT gen_random_uuid(), 'default', 's' || n, 'test.add', '{{}}', 3600, 'UTC', 'latest', 5, 'person', 1,
  clock_timestamp() + make_interval(secs => n - 50) FROM generate_series(1, 10000) n;
INSERT INTO breaker_events (name, epoch, at, was, becomes, reason, who)
SELECT 'breaker-' || n % 10, n, clock_timestamp() - make_interval(mins => n), 'closed', 'open', 'why', 'w'
FROM generate_series(1, 10000) n;
INSERT INTO budgets (name, per, usd, on_exhausted, declared_by, version)
SELECT 'b' || n, '{{}}', 1, 'hold', 'code', 1 FROM generate_series(1, 10000) n;
INSERT INTO budget_accounts (budget, key, day) SELECT 'b' || n % 100, n::text, '' FROM generate_series(1, 100000) n;
INSERT INTO budget_reservations (job_id, fence, call, budget, key, day, attempt, calls, settled_at)
SELECT gen_random_uuid(), 1, 0, 'b' || n % 100, n::text, '', 1, 1, CASE WHEN n > 100 THEN clock_timestamp() END
FROM generate_series(1, 100000) n;
INSERT INTO approvals (id, tenant, job_id, action, action_version, rule, rule_version, digest, state, reason, approvers,
  roles, excluded, quorum, expires_at, valid_seconds, escalate_to, escalate_roles, decided_at)
SELECT id, tenant, id, action, 1, 'rule', 1, fingerprint, CASE WHEN n % 10000 = 0 THEN 'pending' ELSE 'approved' END,
  'why', '{{}}', '{{}}', '{{}}', 1, clock_timestamp() + make_interval(secs => n), 60, '{{}}', '{{}}',
  CASE WHEN n % 10000 <> 0 THEN clock_timestamp() END
FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM jobs) j WHERE n % 100 = 0;
INSERT INTO approval_votes (id, job_id, approval_id, digest, voter, voter_key, verdict, reason, via)
SELECT gen_random_uuid(), job_id, CASE WHEN random() < 0.9 THEN id END, digest, 'ben', 'ben', 'approve', 'why', 'cli'
FROM approvals;
INSERT INTO approval_tokens (hash, approval_id, person, verdict, expires_at)
SELECT sha256(uuid_send(id)), id, 'ben', 'approve', expires_at FROM approvals;
INSERT INTO seals (n, at, horizon, jobs, events, body, acts, acts_hash, previous, hash)
SELECT n, clock_timestamp(), clock_timestamp(), 1, 2, 'body', 0, sha256('a'), sha256('b'), sha256('c')
FROM generate_series(1, 100000) n;
INSERT INTO acts (n, tenant, act, target, who, via, hash)
SELECT n, 'default', 'cancel', 'x', 'ada', 'cli', sha256('a') FROM generate_series(1, 100000) n;
"""

# Those that are no constraint's, and can be made again.
INDEXES = text("""
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS made FROM pg_index
JOIN pg_class made_on ON made_on.oid = indrelid
WHERE made_on.relnamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
""")

ASKED: dict[str, Any] = dict.fromkeys(accept.COLUMNS) | {
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
INTENDED = json.dumps([{"id": JOB, "fence": 1, "effect": "pure", "repeat_seconds": None, "data": {}}])
CLAIMED = {"ids": [UUID(JOB)], "actions": ["test.add"], "versions": [1], "worker": "w", "lease": 30}
SETTLED = json.dumps(
    [{"id": JOB, "fence": 1, "was": "running", "becomes": "succeeded", "unspent": 0, "kind": "succeeded"}]
)
BUDGETED = json.dumps(
    [{"id": JOB, "fence": 1, "attempt": 1, "call": 0, "ordinal": 0, "budget": "b5", "key": "{}", "daily": False}]
)
SPENT = json.dumps([{"id": JOB, "fence": 1, "usd": "1", "at_least": False}])
LEASES = {"ids": [UUID(JOB)], "fences": [1]}
CONVERSATIONS = {"tenants": ["default"], "conversations": ["conversation-2"]}
SAID = json.dumps(
    [{"job_id": JOB, "tenant": "default", "conversation_id": "conversation-2", "ordinal": 1, "role": "user"}]
)
TAKEN_UP = {"ids": [UUID(JOB)], "actions": ["test.add"], "versions": [1], "seconds": [30.0]}
RULED = json.dumps([{"id": JOB, "fence": 1, "attempt": 1, "becomes": "in_doubt", "absent": False, "data": {}}])

REVIEWED = json.dumps([{"id": JOB, "fence": 1, "attempt": 1, "notes": [{"rule": "r", "verdict": "allow"}]}])
ADVANCED = {"id": [UUID(JOB)], "next_tick": [datetime.now(UTC)], "last_tick": [None], "last_job_id": [None]}
ADVANCED |= {"last_error": ["why"]}

STATEMENTS: dict[str, tuple[TextClause | Prepared, dict[str, Any]]] = {
    "accept": (accept.ACCEPT, {"asked": json.dumps([[0, *ASKED.values()]]), "rings": True, "patience": 2}),
    "accept_new": (accept.ACCEPT_NEW, ASKED | {"rings": True, "patience": 2}),
    "note_replays": (accept.NOTE_REPLAYS, {"ids": [UUID(JOB)], "noted": 10}),
    "cancel_lock": (cancel.LOCK, {"id": JOB, "tenant": "default"}),
    "cancel": (cancel.CANCEL, {"id": JOB, "tenant": "default", "reason": None, "who": "ada", "via": "cli"}),
    "retry": (
        retry.RETRY,
        {"id": JOB, "tenant": "default", "reason": "because", "who": "ada", "via": "cli", "channel": "c"},
    ),
    "key_by_id": (keys.KEY_BY_ID, {"id": "abc"}),
    "on_their_way": (overview.ON_THEIR_WAY, {"tenant": None}),
    "on_their_way_theirs": (overview.ON_THEIR_WAY, {"tenant": "default"}),
    "glance_pulse": (glance.PULSE, {"tenant": "default"}),
    "glance_oldest": (glance.OLDEST_DUE, {"tenant": "default"}),
    "outline": (glance.OUTLINE, {"tenant": "default", "request_id": "request-5"}),
    "jobs_in_doubt": (
        reads.JOBS_NEWEST_FIRST[State.IN_DOUBT],
        {"tenant": "default", "action": None, "before": None, "limit": 50},
    ),
    "resolve": (
        resolve.RESOLVE,
        {"id": JOB, "tenant": "default", "verdict": "retry", "becomes": "waiting", "again": True, "happened": False}
        | {"result": None, "reason": "because", "who": "ada", "via": "cli", "channel": "c"},
    ),
    "job_by_id": (reads.JOB_BY_ID, {"id": JOB, "tenant": "default"}),
    "job_by_key": (reads.JOB_BY_KEY, {"tenant": "default", "action": "test.add", "key": "key-5"}),
    "jobs_of_request": (reads.JOBS_OF_REQUEST, {"tenant": "default", "request_id": "request-5"}),
    "states_of": (reads.STATES_OF, {"ids": [UUID(JOB)]}),
    "events_of": (reads.EVENTS_OF, {"id": JOB}),
    "claim": (statements.CLAIM, CLAIMED),
    "intend": (statements.INTEND, {"asked": INTENDED, "worker": "w", "lease": 30, "pure": False}),
    "intend_reserved": (
        statements.INTEND_RESERVED,
        {"asked": INTENDED, "worker": "w", "lease": 30, "pure": False},
    ),
    "open_accounts": (budget_statements.OPEN_ACCOUNTS, {"asked": BUDGETED}),
    "reserve": (budget_statements.RESERVE, {"asked": BUDGETED, "worker": "w", "state": "claimed"}),
    "spend": (budget_statements.SPEND, {"asked": SPENT, "worker": "w"}),
    "room": (budget_statements.ROOM, {"asked": BUDGETED}),
    "prune_settled": (budget_pruner.SETTLED, {"days": 35, "batch": 1000}),
    "prune_unsettled": (budget_pruner.UNSETTLED, {"days": 35, "batch": 1000}),
    "prune_shares": (budget_pruner.SHARES, {"days": 35, "batch": 1000}),
    "wake_budget": (ledger_budgets.WAKE, {"name": "b5", "after": UUID(int=0), "batch": 1000}),
    "settle": (statements.SETTLE, {"asked": SETTLED, "worker": "w"}),
    "renew": (statements.RENEW, {"ids": [UUID(JOB)], "fences": [1], "worker": "w", "lease": 30}),
    "take_up": (doubt_statements.TAKE_UP, TAKEN_UP),
    "supersede": (superseding.SUPERSEDE, {"ids": [UUID(JOB)], "worker": "w"}),
    "rule": (doubt_statements.RULE, {"asked": RULED, "worker": "w"}),
    "due": (relay.DUE, {"batch": 500, "actions": ["test.add"], "versions": [1], "theirs": 3.0}),
    "looked_at": (relay.LOOKED_AT, {"ids": [UUID(JOB)], "seconds": [2.0]}),
    "over": (forgotten.OVER, {"ids": [UUID(JOB)]}),
    "waiting_in_line": (forgotten.WAITING, {"action": "test.add", "batch": 500}),
    "lost_of_a_line": (forgotten.LOST, {"ids": [UUID(JOB)]}),
    "wake_of_a_line": (forgotten.WAKE, {"ids": [UUID(JOB)]}),
    "expire": (relay.EXPIRE, {"batch": 500, "worker": "w"}),
    "conversation": (conversations.CONVERSATION, {"tenant": "default", "id": "conversation-2"}),
    "waiting_turns": (conversations.WAITING, {"tenant": "default", "id": "conversation-2", "limit": 100}),
    "messages": (conversations.MESSAGES, {"tenant": "default", "id": "conversation-2", "limit": 100, "bytes": 1 << 20}),
    "put_off": (
        conversations.PUT_OFF,
        {"ids": [UUID(JOB)], "ring_ats": [datetime.now(UTC)], "seconds": 20.0},
    ),
    "wake_turns": (conversations.WAKE_TURNS, {"ids": [UUID(JOB)], "channel": "c"}),
    "lock_conversations": (turns.LOCK_CONVERSATIONS, LEASES | CONVERSATIONS),
    "take_turns": (turns.TAKE_TURNS, LEASES | {"worker": "w"}),
    "next_turns": (turns.NEXT_TURNS, CONVERSATIONS | {"patience": 2}),
    "append": (turns.APPEND, {"asked": SAID}),
    "next": (schedules.NEXT, {"aside": [UUID(JOB)]}),
    "due_schedules": (schedules.DUE, {"batch": 100, "aside": [UUID(JOB)]}),
    "advance": (schedules.ADVANCE, ADVANCED),
    "schedule_by_name": (schedules.BY_NAME, {"tenant": "default", "name": "s5"}),
    "release": (
        ledger_breakers.RELEASE,
        {
            "name": "llm",
            "since": datetime.now(UTC),
            "after": UUID(int=0),
            "batch": 1000,
            "before": 0,
            "rate": 10.0,
        },
    ),
    "waiting_for_breakers": (ledger_breakers.WAITING, {"vain": 30.0}),
    "try": (ledger_breakers.TRY, {"name": "llm", "but": UUID(JOB)}),
    "alerts_ended": (alert_looks.ENDED, {"since": datetime.now(UTC), "batch": 5_000}),
    "alerts_expired": (alert_looks.EXPIRED, {"since": datetime.now(UTC), "batch": 5_000}),
    "alerts_in_doubt": (alert_looks.IN_DOUBT, {"after": UUID(JOB), "batch": 5_000}),
    "alerts_moved": (alert_looks.MOVED, {"back": timedelta(hours=1), "batch": 500}),
    "alerts_late": (alert_looks.LATE, {"seconds": 300.0}),
    "alerts_unseen": (alert_looks.UNSEEN, {}),
    "held": (ledger_breakers.HELD, {"tenant": "default"}),
    "patient": (ledger_breakers.PATIENT, {"tenant": "default"}),
    "approvals_pending": (gate_standing.PENDING, {}),
    "approvals_decided": (gate_standing.DECIDED, {}),
    "breaker_history": (ledger_breakers.HISTORY, {"name": "llm", "limit": 50}),
    "review": (policy_statements.REVIEW, {"asked": REVIEWED, "worker": "w"}),
    "consume": (policy_statements.CONSUME, {"ids": [UUID(JOB)], "job_id": JOB}),
    "expire_approvals": (approval_sweep.EXPIRE, {"batch": 100, "worker": "w"}),
    "escalate_approvals": (approval_sweep.ESCALATE, {"batch": 100, "worker": "w"}),
    "alerts_approvals": (alert_looks.APPROVALS, {"batch": 500}),
    "approvals_of_job": (approvals.OF_JOB, {"id": JOB, "tenant": "default"}),
    "approvals_newest": (
        approvals.NEWEST_FIRST,
        {"tenant": "default", "state": "pending", "action": None, "before": None, "limit": 50},
    ),
    "approval": (approvals.BY_ID, {"id": JOB, "tenant": "default"}),
    "digest_of": (approvals.DIGEST_OF, {"id": JOB, "tenant": "default"}),
    "approval_lock_job": (deciding.LOCK_JOB, {"id": JOB, "tenant": "default"}),
    "approval_standing": (deciding.STANDING, {"id": JOB, "tenant": "default"}),
    "votes": (deciding.VOTES, {"id": JOB}),
    "decide": (deciding.DECIDE, {"id": JOB, "state": "approved", "by": "ben", "reason": "why", "job": None}),
    "overtake": (deciding.OVERTAKE, {"job_id": JOB, "rule": "r"}),
    "votes_ahead": (deciding.AHEAD, {"id": JOB}),
    "verdict_ahead": (deciding.VERDICT_AHEAD, {"job_id": JOB, "digest": "00", "key": "ben"}),
    "use_token": (tokens.USE, {"hash": b"0" * 32, "tenant": "default"}),
    "ask": (
        deciding.ASK,
        {"id": JOB, "job_id": JOB, "rule": "r", "rule_version": 1, "reason": "why", "approvers": [], "roles": []}
        | {"quorum": 1, "preview": None, "preview_error": None, "effect": None, "cost": None}
        | {"expires_seconds": 60.0, "valid_seconds": 60.0}
        | {"escalate_seconds": None, "escalate_to": [], "escalate_roles": []},
    ),
    "rescue": (rescue.RESCUE, {"batch": 100, "worker": "w", "cap": 3}),
}


A_WHILE = {"begins": datetime.now(UTC), "ends": datetime.now(UTC) + timedelta(seconds=5)}
# In the sealer's transaction, which says beforehand how it has them planned.
SEALING: dict[str, tuple[TextClause, dict[str, Any]]] = {
    "look": (seals.LOOK, {}),
    "first": (seals.FIRST, A_WHILE),
    "last": (seals.LAST, {}),
    "chains": (seals.CHAINS, A_WHILE),
    "acts_head": (seals.ACTS_HEAD, {}),
    "seals": (seals.SEALS, {"after": 99_000, "limit": 100}),
    "events_of_jobs": (seals.EVENTS_OF_JOBS, {"ids": [UUID(JOB)]}),
}


@pytest.fixture(scope="module")
def million(module_settings: Settings) -> Iterator[Engine]:
    engine = open_engine(module_settings.database_url, connections=1, name="tests")
    with engine.connect() as connection:
        # As a replica applies them: what refers to what is as it should be, and is not looked up row by row.
        connection.execute(text("SET statement_timeout = 0; SET synchronous_commit = off"))
        connection.execute(text("SET session_replication_role = replica; SET work_mem = '256MB'"))
        connection.execute(text("SET maintenance_work_mem = '512MB'"))
        # Indexes last: each of them is sorted at once then, instead of row by row.
        indexes = connection.execute(INDEXES).all()
        statements = [f"DROP INDEX {index.name}" for index in indexes]
        statements += [*filter(str.strip, FILL.split(";")), *(index.made for index in indexes)]
        # Not the others: of a table that is known to be empty a scan is right.
        statements += [f"VACUUM ANALYZE {table}" for table in dict.fromkeys(re.findall(r"INSERT INTO (\w+)", FILL))]
        for statement in statements:
            connection.execute(text(statement))
        connection.execute(text("RESET session_replication_role; RESET work_mem; RESET maintenance_work_mem"))
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
    assert _scanned(nodes) == []
    assert [node["Index Name"] for node in _read_through(nodes) if not node["Index Name"].startswith(PARTIAL)] == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("planned", ["as any connection does", "after what a connection has that plans once"])
@pytest.mark.parametrize("name", SEALING)
def test_no_statement_of_sealing_reads_more_than_what_was_added_meanwhile(
    million: Engine, name: str, planned: str
) -> None:
    statement, parameters = SEALING[name]
    settings = "RESET ALL" if planned.startswith("as") else PLAN_ONCE.format(hashing="off")
    with million.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        transaction = connection.begin()
        connection.exec_driver_sql(settings)
        connection.exec_driver_sql(seals.PLAN)
        explained = explain(connection, statement, parameters)
        transaction.rollback()
    nodes = list(_nodes(explained[0]["Plan"]))
    assert _scanned(nodes) == []
    assert [node["Index Name"] for node in _read_through(nodes)] == []


def explain(connection: Connection, statement: TextClause | Prepared, parameters: dict[str, Any]) -> Any:
    """Return the plan that the statement really runs by: for a prepared one, the plan that was kept."""
    if isinstance(statement, Prepared):
        statement.prepare(connection)
        execute = f"EXECUTE {statement.name} ({', '.join(f':{name}' for name in statement.order)})"
        return connection.execute(text(f"EXPLAIN (FORMAT JSON) {execute}"), parameters).scalar_one()
    return connection.execute(text(f"EXPLAIN (FORMAT JSON) {statement.text}"), parameters).scalar_one()


# Walked from end to end, since they hold only what is on its way; or the first of the schedules is taken from one.
PARTIAL = ("jobs_to_", "schedules_to_", "approvals_to_", "approvals_pending")


def _scanned(nodes: Sequence[dict[str, Any]]) -> list[str]:
    return [node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"]


def _read_through(nodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the indexes that are read from end to end, which is a scan by another name.

    Not those in which something is looked up, nor of which so many are taken from one end, whatever they are.
    """
    first = {id(child) for node in nodes if node["Node Type"] == "Limit" for child in node["Plans"]}
    return [
        node
        for node in nodes
        if node["Node Type"].startswith("Index")
        and "Index Cond" not in node
        and not (id(node) in first and "Filter" not in node)
    ]


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


@pytest.mark.parametrize("name", ["accept", "claim", "intend", "intend_reserved", "settle", "renew", "take_up", "rule"])
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


@pytest.mark.parametrize("name", ["open_accounts", "reserve", "spend", "room"])
def test_a_plan_kept_from_a_ledger_without_budgets_looks_shares_up_by_their_keys(engine: Engine, name: str) -> None:
    statement, parameters = STATEMENTS[name]
    with engine.connect() as connection:
        explained = explain(connection, statement, parameters)
    tables = ("jobs", "budgets", "budget_accounts", "budget_reservations")
    nodes = _nodes(explained[0]["Plan"])
    scans = [n for n in nodes if n.get("Relation Name") in tables and n["Node Type"] != "ModifyTable"]
    assert all("Index Cond" in scan for scan in scans), scans

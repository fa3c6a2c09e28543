"""The ledger's tables, as both sides see them. Migrations make them; a test holds the two equal.

A job's row is narrow and changes a few times; what the agent said and got (its decision) is written twice; events
are only ever added. JSON columns are ``json``, not ``jsonb``: the text is kept as it was accepted, so that what a
digest was taken of can be read back.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    DDL,
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    event,
    text,
)
from sqlalchemy import BigInteger as Bigint

from producer.ledger import approval_tables, audit_tables, budget_tables, policy_tables
from producer.ledger.metadata import NOW, Timestamp, metadata
from producer.ledger.states import LEASED, OPEN, RINGABLE, State, in_sql

# Whoever imports this has every table in `metadata`.
__all__ = ["approval_tables", "audit_tables", "budget_tables", "metadata", "policy_tables"]

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("action_version", Integer, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("key_derived", Boolean, nullable=False),
    Column("rerun", Integer, nullable=False, server_default="0"),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("replays", Integer, nullable=False, server_default="0"),
    Column("state", Text, nullable=False),
    Column("waiting_for", Text),
    Column("queue", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("traceparent", Text, nullable=False),
    Column("accepted_at", Timestamp, nullable=False, server_default=NOW),
    Column("due_at", Timestamp, nullable=False),
    Column("deadline_at", Timestamp),
    Column("ring_at", Timestamp, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("crashes", Integer, nullable=False, server_default="0"),
    Column("fence", Bigint, nullable=False, server_default="0"),
    Column("effect", Text),
    Column("repeatable_until", Timestamp),  # set by the first intent: after it a repeat may be a second effect
    Column("maybe_happened", Boolean, nullable=False, server_default="false"),
    Column("lease_owner", Text),
    Column("lease_expires_at", Timestamp),
    Column("cancel_requested_at", Timestamp),
    Column("finished_at", Timestamp),
    Column("last_seq", Integer, nullable=False, server_default="1"),
    Column("conversation_id", Text),
    # Where the action can look its effect up, set by every intent: after it no effect of the attempt can arrive.
    Column("quiet_at", Timestamp),
    Column("looks_left", SmallInteger),  # at a job in doubt; NULL where nothing looks
    Column("absent_at", Timestamp),  # when a look first found that it had not happened, after quiet_at
    # Of which dependency, where it waits for one's breaker, or for one that asked for patience; NULL unless it waits.
    Column("waiting_on", Text),
    Column("degraded_by", Text),  # the rule; it stays where a true result has come since
    Column("repairs", SmallInteger, nullable=False, server_default="0"),
    UniqueConstraint("tenant", "action", "idempotency_key", "rerun"),
    CheckConstraint(f"state IN ({in_sql(State)})", name="state"),
    CheckConstraint(f"(state IN ({in_sql(LEASED)})) = (lease_expires_at IS NOT NULL)", name="lease"),
    CheckConstraint("state <> 'running' OR effect IS NOT NULL", name="effect"),
    CheckConstraint("(state = 'waiting') = (waiting_for IS NOT NULL)", name="waiting_for"),
    CheckConstraint("looks_left IS NULL OR state = 'in_doubt'", name="looks_left"),
    CheckConstraint("octet_length(fingerprint) = 32", name="fingerprint"),
    # The way of a job looks these up; each holds only the few rows that are on their way.
    Index("jobs_to_ring", "ring_at", postgresql_where=text(f"state IN ({in_sql(RINGABLE)})")),
    Index("jobs_to_rescue", "lease_expires_at", postgresql_where=text(f"state IN ({in_sql(LEASED)})")),
    Index(
        "jobs_to_expire",
        "deadline_at",
        postgresql_where=text(f"state IN ({in_sql(RINGABLE)}) AND deadline_at IS NOT NULL"),
    ),
    # Whose turn it is in a conversation: the first of these by id.
    Index(
        "jobs_in_conversation",
        "tenant",
        "conversation_id",
        "id",
        postgresql_where=text(f"conversation_id IS NOT NULL AND state IN ({in_sql(OPEN)})"),
    ),
    Index("jobs_to_release", "waiting_on", "id", postgresql_where=text("waiting_for = 'breaker'")),
    Index("jobs_in_line", "action", "id", postgresql_where=text("waiting_for = 'concurrency'")),
    Index("jobs_to_fund", "waiting_on", "id", postgresql_where=text("waiting_for = 'budget'")),
    Index("jobs_to_look_up", "ring_at", postgresql_where=text("looks_left > 0")),
    # What ended badly since a moment, for the alerts.
    Index("jobs_to_tell", "finished_at", postgresql_where=text("state IN ('dead', 'degraded', 'failed')")),
    # What a person looks for and what is rare; the rest is found newest first by the primary key.
    Index(
        "jobs_to_look_at",
        "state",
        "id",
        postgresql_where=text("state IN ('awaiting_approval', 'dead', 'degraded', 'failed', 'in_doubt')"),
    ),
)

decisions = Table(
    "decisions",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id"), primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("agent_id", Text),
    Column("user_id", Text),
    Column("action", Text, nullable=False),
    Column("input", JSON),
    Column("reasoning", Text),
    Column("params", JSON, nullable=False),
    Column("decided_at", Timestamp, nullable=False, server_default=NOW),
    Column("result", JSON),
    Column("error", JSON),
    Column("latency_ms", Numeric(14, 3)),
    Column("tokens_in", Bigint),
    Column("tokens_out", Bigint),
    Column("cost_usd", Numeric(18, 9)),
    Column("repair", JSON),  # what was wrong with the last answer, and the answer, for the attempt that repairs it
    Column("parent_job_id", Uuid),  # no foreign key: a job may outlive the one that asked for it
    Index("decisions_by_request", "request_id", "decided_at"),
)

events = Table(
    "events",
    metadata,
    # No foreign key: the statement that adds an event has just changed the job's row, and old events can
    # be dropped by the partition some day without asking the jobs.
    Column("job_id", Uuid, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Timestamp, nullable=False, server_default=NOW),
    Column("kind", Text, nullable=False),
    Column("attempt", Integer),
    Column("fence", Bigint),
    Column("worker", Text),
    Column("data", JSON),
    Index("events_by_time", "at"),  # what was added since the last seal
)

conversations = Table(
    "conversations",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    # The job that has the turn until it is closed; no foreign key: it may be gone by then.
    Column("turn_of", Uuid),
    Column("last_seq", Integer, nullable=False, server_default="0"),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
)

messages = Table(
    "messages",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("conversation_id", Text, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("role", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("tool_calls", JSON),
    Column("tokens", Bigint),
    Column("job_id", Uuid, nullable=False),
    Column("at", Timestamp, nullable=False, server_default=NOW),
    CheckConstraint("role IN ('system', 'user', 'assistant', 'tool')", name="role"),
)

actions = Table(
    "actions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("effect", Text, nullable=False),
    Column("queue", Text),
    Column("description", Text, nullable=False),
    Column("params_schema", JSON, nullable=False),
    Column("result_schema", JSON, nullable=False),
    Column("policy", JSON, nullable=False),
    Column("published_at", Timestamp, nullable=False, server_default=NOW),
)

# Whatever a breaker went through, once each, in the words of producer.breaker_words.Transition.
breaker_events = Table(
    "breaker_events",
    metadata,
    Column("name", Text, primary_key=True),
    Column("epoch", Bigint, primary_key=True, autoincrement=False),
    Column("at", Timestamp, nullable=False),  # by Redis's clock
    Column("was", Text, nullable=False),
    Column("becomes", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("job_id", Uuid),  # no foreign key: a job may be pruned
    Column("until", Timestamp),
    CheckConstraint("was IN ('closed', 'open', 'half-open')", name="was"),
    CheckConstraint("becomes IN ('closed', 'open', 'half-open')", name="becomes"),
    Index("breaker_events_by_time", "at"),
)

schedules = Table(
    "schedules",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("params", JSON, nullable=False),
    Column("cron", Text),
    Column("every", Bigint),  # seconds
    Column("zone", Text, nullable=False),
    Column("missed", Text, nullable=False),
    Column("request_id", Text),
    Column("agent_id", Text),
    Column("user_id", Text),
    Column("reasoning", Text),
    Column("queue", Text),
    Column("priority", SmallInteger, nullable=False),
    Column("declared_by", Text, nullable=False),
    Column("declared_in", Text),  # the module, where code declares it
    Column("version", Integer, nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("paused_at", Timestamp),
    Column("paused_by", Text),
    Column("next_tick", Timestamp, nullable=False),
    Column("last_tick", Timestamp),
    Column("last_job_id", Uuid),  # no foreign key: a job may be pruned
    Column("last_error", Text),
    UniqueConstraint("tenant", "name"),
    CheckConstraint("(cron IS NULL) <> (every IS NULL)", name="rule"),
    CheckConstraint("every >= 1", name="every"),
    CheckConstraint("missed IN ('skip', 'latest', 'all')", name="missed"),
    CheckConstraint("declared_by IN ('code', 'person')", name="declared_by"),
    CheckConstraint("(paused_at IS NULL) = (paused_by IS NULL)", name="paused"),
    CheckConstraint("paused_by IN ('code', 'person')", name="paused_by"),
    Index("schedules_to_tick", "next_tick", postgresql_where=text("paused_at IS NULL")),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("rate_per_second", Numeric(12, 3), nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("created_by", Text, nullable=False),
    Column("expires_at", Timestamp),
    Column("revoked_at", Timestamp),
    Column("revoked_by", Text),
    CheckConstraint("octet_length(secret_hash) = 32", name="secret_hash"),
    Index("api_keys_of_tenant", "tenant", "created_at"),
)

# Nothing is changed but by erasing: what an event says may go, and its digest stays in its place.
APPEND_ONLY = (
    """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      RAISE EXCEPTION 'events are only ever added' USING ERRCODE = 'insufficient_privilege';
    END $$
    """,
    """
    CREATE TRIGGER events_append_only BEFORE DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE FUNCTION refuse_all_but_erasing() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF ROW(new.job_id, new.seq, new.at, new.kind, new.attempt, new.fence, new.worker)
           IS NOT DISTINCT FROM ROW(old.job_id, old.seq, old.at, old.kind, old.attempt, old.fence, old.worker)
         AND CAST(new.data AS text)
           = '{"erased":"' || encode(sha256(convert_to(CAST(old.data AS text), 'UTF8')), 'hex') || '"}' THEN
        RETURN new;
      END IF;
      RAISE EXCEPTION 'events are only ever added' USING ERRCODE = 'insufficient_privilege';
    END $$
    """,
    """
    CREATE TRIGGER events_unchanged BEFORE UPDATE ON events
    FOR EACH ROW EXECUTE FUNCTION refuse_all_but_erasing()
    """,
)
UNCHANGED = """
    CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """
for statement in (*APPEND_ONLY, *(UNCHANGED.format(table=table) for table in ("breaker_events", "acts", "seals"))):
    event.listen(metadata, "after_create", DDL(statement))  # type: ignore[no-untyped-call]  # SQLAlchemy's own gap

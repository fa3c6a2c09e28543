"""One job's way: jobs, decisions, events and the actions that workers publish.

States and names stand here as they were when this was written; `tables.py` moves on, a migration never does.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")
Moment = sa.DateTime(timezone=True)
RINGABLE = "state IN ('queued', 'waiting')"


def upgrade() -> None:
    _create_jobs()
    _index_jobs()
    _create_decisions()
    _create_events()
    _create_actions()


def downgrade() -> None:
    op.drop_table("actions")
    op.drop_table("events")
    op.execute("DROP FUNCTION refuse_change()")
    op.drop_table("decisions")
    op.drop_table("jobs")


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("action_version", sa.Integer, nullable=False),
        sa.Column("idempotency_key", sa.Text, nullable=False),
        sa.Column("key_derived", sa.Boolean, nullable=False),
        sa.Column("rerun", sa.Integer, nullable=False, server_default="0"),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("replays", sa.Integer, nullable=False, server_default="0"),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("waiting_for", sa.Text),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("traceparent", sa.Text, nullable=False),
        sa.Column("accepted_at", Moment, nullable=False, server_default=NOW),
        sa.Column("due_at", Moment, nullable=False),
        sa.Column("deadline_at", Moment),
        sa.Column("ring_at", Moment, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("crashes", sa.Integer, nullable=False, server_default="0"),
        sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("effect", sa.Text),
        sa.Column("repeatable_until", Moment),
        sa.Column("maybe_happened", sa.Boolean, nullable=False, server_default="false"),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_expires_at", Moment),
        sa.Column("cancel_requested_at", Moment),
        sa.Column("finished_at", Moment),
        sa.Column("last_seq", sa.Integer, nullable=False, server_default="1"),
        sa.UniqueConstraint(
            "tenant", "action", "idempotency_key", "rerun", name="jobs_tenant_action_idempotency_key_rerun_key"
        ),
        sa.CheckConstraint(
            "state IN ('awaiting_approval', 'cancelled', 'claimed', 'dead', 'degraded', 'expired', 'failed',"
            " 'in_doubt', 'queued', 'rejected', 'running', 'succeeded', 'waiting')",
            name=op.f("jobs_state_check"),
        ),
        sa.CheckConstraint(
            "(state IN ('claimed', 'running')) = (lease_expires_at IS NOT NULL)", name=op.f("jobs_lease_check")
        ),
        sa.CheckConstraint("state <> 'running' OR effect IS NOT NULL", name=op.f("jobs_effect_check")),
        sa.CheckConstraint("(state = 'waiting') = (waiting_for IS NOT NULL)", name=op.f("jobs_waiting_for_check")),
        sa.CheckConstraint("octet_length(fingerprint) = 32", name=op.f("jobs_fingerprint_check")),
    )


def _index_jobs() -> None:
    op.create_index("jobs_to_ring", "jobs", ["ring_at"], postgresql_where=sa.text(RINGABLE))
    op.create_index(
        "jobs_to_rescue",
        "jobs",
        ["lease_expires_at"],
        postgresql_where=sa.text("state IN ('claimed', 'running')"),
    )
    op.create_index(
        "jobs_to_expire",
        "jobs",
        ["deadline_at"],
        postgresql_where=sa.text(f"{RINGABLE} AND deadline_at IS NOT NULL"),
    )
    op.create_index(
        "jobs_to_look_at",
        "jobs",
        ["state", "id"],
        postgresql_where=sa.text("state IN ('awaiting_approval', 'dead', 'failed', 'in_doubt')"),
    )


def _create_decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id", name="decisions_job_id_fkey"), primary_key=True),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("agent_id", sa.Text),
        sa.Column("user_id", sa.Text),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("input", sa.JSON),
        sa.Column("reasoning", sa.Text),
        sa.Column("params", sa.JSON, nullable=False),
        sa.Column("decided_at", Moment, nullable=False, server_default=NOW),
        sa.Column("result", sa.JSON),
        sa.Column("error", sa.JSON),
        sa.Column("latency_ms", sa.Numeric(14, 3)),
        sa.Column("tokens_in", sa.BigInteger),
        sa.Column("tokens_out", sa.BigInteger),
        sa.Column("cost_usd", sa.Numeric(18, 9)),
    )
    op.create_index("decisions_by_request", "decisions", ["request_id", "decided_at"])


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("job_id", sa.Uuid, primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", Moment, nullable=False, server_default=NOW),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer),
        sa.Column("fence", sa.BigInteger),
        sa.Column("worker", sa.Text),
        sa.Column("data", sa.JSON),
    )
    op.execute("""
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          RAISE EXCEPTION 'events are only ever added' USING ERRCODE = 'insufficient_privilege';
        END $$
    """)
    op.execute("""
        CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)


def _create_actions() -> None:
    op.create_table(
        "actions",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("effect", sa.Text, nullable=False),
        sa.Column("queue", sa.Text),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("params_schema", sa.JSON, nullable=False),
        sa.Column("result_schema", sa.JSON, nullable=False),
        sa.Column("policy", sa.JSON, nullable=False),
        sa.Column("published_at", Moment, nullable=False, server_default=NOW),
    )

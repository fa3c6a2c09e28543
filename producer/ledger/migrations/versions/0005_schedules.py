"""Schedules: what is due when, beside the jobs that it makes. A table of its own: code from before goes on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("params", sa.JSON, nullable=False),
        sa.Column("cron", sa.Text),
        sa.Column("every", sa.BigInteger),
        sa.Column("zone", sa.Text, nullable=False),
        sa.Column("missed", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text),
        sa.Column("agent_id", sa.Text),
        sa.Column("user_id", sa.Text),
        sa.Column("reasoning", sa.Text),
        sa.Column("queue", sa.Text),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("declared_by", sa.Text, nullable=False),
        sa.Column("declared_in", sa.Text),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", Moment, nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.Column("paused_at", Moment),
        sa.Column("paused_by", sa.Text),
        sa.Column("next_tick", Moment, nullable=False),
        sa.Column("last_tick", Moment),
        sa.Column("last_job_id", sa.Uuid),
        sa.Column("last_error", sa.Text),
        sa.UniqueConstraint("tenant", "name", name="schedules_tenant_name_key"),
        sa.CheckConstraint("(cron IS NULL) <> (every IS NULL)", name=op.f("schedules_rule_check")),
        sa.CheckConstraint("every >= 1", name=op.f("schedules_every_check")),
        sa.CheckConstraint("missed IN ('skip', 'latest', 'all')", name=op.f("schedules_missed_check")),
        sa.CheckConstraint("declared_by IN ('code', 'person')", name=op.f("schedules_declared_by_check")),
        sa.CheckConstraint("(paused_at IS NULL) = (paused_by IS NULL)", name=op.f("schedules_paused_check")),
        sa.CheckConstraint("paused_by IN ('code', 'person')", name=op.f("schedules_paused_by_check")),
    )
    op.create_index("schedules_to_tick", "schedules", ["next_tick"], postgresql_where=sa.text("paused_at IS NULL"))


def downgrade() -> None:
    op.drop_table("schedules")

"""Conversations: their messages, and which job has the turn.

A job names its conversation in a column without a default, so that no row is rewritten. Its index holds open jobs of
conversations alone, so it is empty now; making it reads the jobs once, and accepts wait for as long.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")
Moment = sa.DateTime(timezone=True)
OPEN = "'awaiting_approval', 'claimed', 'in_doubt', 'queued', 'running', 'waiting'"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("conversation_id", sa.Text))
    op.create_index(
        "jobs_in_conversation",
        "jobs",
        ["tenant", "conversation_id", "id"],
        postgresql_where=sa.text(f"conversation_id IS NOT NULL AND state IN ({OPEN})"),
    )
    op.create_table(
        "conversations",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("turn_of", sa.Uuid),
        sa.Column("last_seq", sa.Integer, nullable=False, server_default="0"),
        sa.Column("created_at", Moment, nullable=False, server_default=NOW),
    )
    op.create_table(
        "messages",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("conversation_id", sa.Text, primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("tool_calls", sa.JSON),
        sa.Column("tokens", sa.BigInteger),
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("at", Moment, nullable=False, server_default=NOW),
        sa.CheckConstraint("role IN ('system', 'user', 'assistant', 'tool')", name=op.f("messages_role_check")),
    )


def downgrade() -> None:
    op.drop_table("messages")
    op.drop_table("conversations")
    op.drop_index("jobs_in_conversation", "jobs")
    op.drop_column("jobs", "conversation_id")

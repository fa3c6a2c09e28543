"""Approvals: what waits for a person, who said what of it, the tokens of links, and who has which role.

Tables of their own: code from before goes on, and has no job wait for anybody.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")
STATES = "'approved', 'expired', 'pending', 'rejected', 'superseded', 'withdrawn'"


def upgrade() -> None:
    op.create_table(
        "approvals",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("action_version", sa.Integer, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("rule_version", sa.Integer, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("approvers", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("roles", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("excluded", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("quorum", sa.SmallInteger, nullable=False),
        sa.Column("preview", sa.JSON),
        sa.Column("preview_error", sa.Text),
        sa.Column("requested_at", Moment, nullable=False, server_default=NOW),
        sa.Column("expires_at", Moment, nullable=False),
        sa.Column("valid_seconds", sa.Double, nullable=False),
        sa.Column("valid_until", Moment),
        sa.Column("escalate_at", Moment),
        sa.Column("escalate_to", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("escalate_roles", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("escalated_at", Moment),
        sa.Column("decided_at", Moment),
        sa.Column("decided_by", sa.Text),
        sa.Column("decided_why", sa.Text),
        sa.Column("consumed_at", Moment),
        sa.Column("superseded_by", sa.Uuid),
        sa.CheckConstraint(f"state IN ({STATES})", name=op.f("approvals_state_check")),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("approvals_digest_check")),
        sa.CheckConstraint("quorum >= 1", name=op.f("approvals_quorum_check")),
        sa.CheckConstraint("(state = 'pending') = (decided_at IS NULL)", name=op.f("approvals_decided_check")),
        sa.CheckConstraint("state = 'approved' OR consumed_at IS NULL", name=op.f("approvals_consumed_check")),
    )
    pending = sa.text("state = 'pending'")
    op.create_index("approvals_of_job", "approvals", ["job_id"])
    op.create_index("approvals_pending", "approvals", ["job_id"], unique=True, postgresql_where=pending)
    op.create_index("approvals_newest", "approvals", ["tenant", "id"])
    op.create_index("approvals_to_expire", "approvals", ["expires_at"], postgresql_where=pending)
    op.create_index(
        "approvals_to_escalate",
        "approvals",
        ["escalate_at"],
        postgresql_where=sa.text("state = 'pending' AND escalated_at IS NULL AND escalate_at IS NOT NULL"),
    )
    op.create_index("approvals_replaced", "approvals", ["superseded_by"])
    op.create_table(
        "approval_votes",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("approval_id", sa.Uuid, sa.ForeignKey("approvals.id", name=op.f("approval_votes_approval_id_fkey"))),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("voter", sa.Text, nullable=False),
        sa.Column("voter_key", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("via", sa.Text, nullable=False),
        sa.Column("address", sa.Text),
        sa.Column("at", Moment, nullable=False, server_default=NOW),
        sa.CheckConstraint("verdict IN ('approve', 'reject')", name=op.f("approval_votes_verdict_check")),
    )
    op.create_index("approval_votes_once", "approval_votes", ["approval_id", "voter_key"], unique=True)
    op.create_index(
        "approval_votes_ahead",
        "approval_votes",
        ["job_id", "digest", "voter_key"],
        unique=True,
        postgresql_where=sa.text("approval_id IS NULL"),
    )
    op.create_table(
        "approval_tokens",
        sa.Column("hash", sa.LargeBinary, primary_key=True),
        sa.Column(
            "approval_id",
            sa.Uuid,
            sa.ForeignKey("approvals.id", name=op.f("approval_tokens_approval_id_fkey")),
            nullable=False,
        ),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("created_at", Moment, nullable=False, server_default=NOW),
        sa.Column("expires_at", Moment, nullable=False),
        sa.Column("used_at", Moment),
        sa.CheckConstraint("verdict IN ('approve', 'reject')", name=op.f("approval_tokens_verdict_check")),
        sa.CheckConstraint("octet_length(hash) = 32", name=op.f("approval_tokens_hash_check")),
    )
    op.create_table(
        "roles",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, primary_key=True),
        sa.Column("person", sa.Text, primary_key=True),
        sa.Column("granted_at", Moment, nullable=False, server_default=NOW),
        sa.Column("granted_by", sa.Text, nullable=False),
    )


def downgrade() -> None:
    for table in ("roles", "approval_tokens", "approval_votes", "approvals"):
        op.drop_table(table)

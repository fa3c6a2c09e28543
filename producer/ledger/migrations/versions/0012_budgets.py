"""Budgets: ceilings, what is spent and reserved of each by key and day, and who has reserved it.

Code from before goes on: it reserves nothing, so that what it spends is not counted until its workers are replaced.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")
Timestamp = sa.DateTime(timezone=True)
Money = sa.Numeric(18, 9)


def upgrade() -> None:
    op.create_table(
        "budgets",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("per", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("actions", sa.ARRAY(sa.Text)),
        sa.Column("usd", Money),
        sa.Column("tokens", sa.BigInteger),
        sa.Column("calls", sa.BigInteger),
        sa.Column("on_exhausted", sa.Text, nullable=False),
        sa.Column("declared_by", sa.Text, nullable=False),
        sa.Column("declared_in", sa.Text),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False, server_default=NOW),
        sa.Column("set_usd", Money),
        sa.Column("set_tokens", sa.BigInteger),
        sa.Column("set_calls", sa.BigInteger),
        sa.Column("set_at", Timestamp),
        sa.Column("set_by", sa.Text),
        sa.Column("set_why", sa.Text),
        sa.CheckConstraint("on_exhausted IN ('hold', 'refuse')", name=op.f("budgets_on_exhausted_check")),
        sa.CheckConstraint("declared_by IN ('code', 'person')", name=op.f("budgets_declared_by_check")),
        sa.CheckConstraint(
            "least(usd, tokens, calls, set_usd, set_tokens, set_calls) >= 0", name=op.f("budgets_ceilings_check")
        ),
    )
    op.create_table(
        "budget_accounts",
        sa.Column("budget", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text),
        sa.Column("ends_at", Timestamp),
        sa.Column("spent_usd", Money, nullable=False, server_default="0"),
        sa.Column("spent_tokens", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("spent_calls", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("reserved_usd", Money, nullable=False, server_default="0"),
        sa.Column("reserved_tokens", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("reserved_calls", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.create_table(
        "budget_reservations",
        sa.Column("job_id", sa.Uuid, primary_key=True),
        sa.Column("fence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("call", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("budget", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("day", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("usd", Money),
        sa.Column("tokens", sa.BigInteger),
        sa.Column("calls", sa.BigInteger, nullable=False),
        sa.Column("reserved_at", Timestamp, nullable=False, server_default=NOW),
        sa.Column("settled_at", Timestamp),
    )
    op.create_index(
        "budget_reservations_open",
        "budget_reservations",
        ["budget", "key", "day"],
        postgresql_where=sa.text("settled_at IS NULL"),
    )
    op.create_index("jobs_to_fund", "jobs", ["waiting_on", "id"], postgresql_where=sa.text("waiting_for = 'budget'"))


def downgrade() -> None:
    op.drop_index("jobs_to_fund", "jobs")
    op.drop_table("budget_reservations")
    op.drop_table("budget_accounts")
    op.drop_table("budgets")

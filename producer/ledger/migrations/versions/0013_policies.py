"""Published policies, budgets for one tenant alone, what approvers see of costs, and indexes for alerts and pruning.

Code from before goes on: it publishes no policy, and asks those that it has loaded; a budget for one tenant alone is
everybody's to it until its workers are replaced.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")
Timestamp = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "policies",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("patterns", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("declared_in", sa.Text, nullable=False),
        sa.Column("published_at", Timestamp, nullable=False, server_default=NOW),
        sa.Column("retired_at", Timestamp),
        sa.Column("changed", sa.BigInteger, nullable=False),
    )
    op.create_index("policies_changed", "policies", ["changed"])
    op.add_column("budgets", sa.Column("only_for", sa.JSON))
    op.add_column("budgets", sa.Column("instead_of", sa.Text))
    op.add_column("approvals", sa.Column("effect", sa.Text))
    op.add_column("approvals", sa.Column("cost", sa.JSON))
    op.create_index("approvals_to_tell", "approvals", ["decided_at"], postgresql_where=sa.text("state = 'expired'"))
    op.create_index(
        "budget_accounts_to_prune", "budget_accounts", ["ends_at"], postgresql_where=sa.text("ends_at IS NOT NULL")
    )
    op.create_index(
        "budget_reservations_to_prune",
        "budget_reservations",
        ["settled_at"],
        postgresql_where=sa.text("settled_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("budget_reservations_to_prune", "budget_reservations")
    op.drop_index("budget_accounts_to_prune", "budget_accounts")
    op.drop_index("approvals_to_tell", "approvals")
    op.drop_column("approvals", "cost")
    op.drop_column("approvals", "effect")
    op.drop_column("budgets", "instead_of")
    op.drop_column("budgets", "only_for")
    op.drop_table("policies")

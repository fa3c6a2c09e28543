"""Breakers: on what a job waits, and what every breaker went through.

A column without a default, so that no row is rewritten; code from before goes on, and leaves a name behind that nobody
reads in a job that does not wait.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True)
STATES = "('closed', 'open', 'half-open')"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("waiting_on", sa.Text))
    op.create_index(
        "jobs_to_release", "jobs", ["waiting_on", "id"], postgresql_where=sa.text("waiting_for = 'breaker'")
    )
    op.create_table(
        "breaker_events",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("was", sa.Text, nullable=False),
        sa.Column("becomes", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("job_id", sa.Uuid),
        sa.Column("until", Moment),
        sa.CheckConstraint(f"was IN {STATES}", name=op.f("breaker_events_was_check")),
        sa.CheckConstraint(f"becomes IN {STATES}", name=op.f("breaker_events_becomes_check")),
    )
    op.execute("""
        CREATE TRIGGER breaker_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON breaker_events
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)


def downgrade() -> None:
    op.drop_table("breaker_events")
    op.drop_index("jobs_to_release", "jobs")
    op.drop_column("jobs", "waiting_on")

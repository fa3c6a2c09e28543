"""Alerts: what ended badly since a moment, and what breakers went through since one.

Two indexes; both hold the few rows that somebody may have to be told of, and code from before goes on.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "jobs_to_tell", "jobs", ["finished_at"], postgresql_where=sa.text("state IN ('dead', 'degraded', 'failed')")
    )
    op.create_index("breaker_events_by_time", "breaker_events", ["at"])


def downgrade() -> None:
    op.drop_index("breaker_events_by_time", "breaker_events")
    op.drop_index("jobs_to_tell", "jobs")

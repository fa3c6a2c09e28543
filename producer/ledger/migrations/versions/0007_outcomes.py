"""Outcomes: by which rule a job was degraded, how often a model's answer was repaired, and what was wrong with it last.

Code from before goes on: it leaves the new columns as they are.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

LOOKED_AT = "state IN ('awaiting_approval', 'dead', 'failed', 'in_doubt')"
LOOKED_AT_NOW = "state IN ('awaiting_approval', 'dead', 'degraded', 'failed', 'in_doubt')"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("degraded_by", sa.Text))
    op.add_column("jobs", sa.Column("repairs", sa.SmallInteger, nullable=False, server_default="0"))
    op.add_column("decisions", sa.Column("repair", sa.JSON))
    op.execute(
        "UPDATE jobs j SET degraded_by = e.data ->> 'why' FROM events e"
        " WHERE j.state = 'degraded' AND e.job_id = j.id AND e.kind = 'degraded'"
    )
    _look_at(LOOKED_AT_NOW)


def downgrade() -> None:
    _look_at(LOOKED_AT)
    op.drop_column("decisions", "repair")
    op.drop_column("jobs", "repairs")
    op.drop_column("jobs", "degraded_by")


def _look_at(states: str) -> None:
    op.drop_index("jobs_to_look_at", "jobs")
    op.create_index("jobs_to_look_at", "jobs", ["state", "id"], postgresql_where=sa.text(states))

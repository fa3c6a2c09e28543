"""An index of the jobs that wait for a place of a limited action.

Code from before goes on, and does without.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("jobs_in_line", "jobs", ["action", "id"], postgresql_where=sa.text("waiting_for = 'concurrency'"))


def downgrade() -> None:
    op.drop_index("jobs_in_line", "jobs")

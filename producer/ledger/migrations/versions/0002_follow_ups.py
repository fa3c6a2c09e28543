"""Follow-ups: a decision names the job whose action made it.

A column without a default, so that no row is rewritten, and code from before goes on.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("decisions", sa.Column("parent_job_id", sa.Uuid))


def downgrade() -> None:
    op.drop_column("decisions", "parent_job_id")

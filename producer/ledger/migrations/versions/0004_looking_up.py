"""Looking effects up: until when one may still arrive, how many looks are left, and since when none is found.

Columns without defaults, so that no row is rewritten, and code from before goes on.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("jobs", sa.Column("quiet_at", Moment))
    op.add_column("jobs", sa.Column("looks_left", sa.SmallInteger))
    op.add_column("jobs", sa.Column("absent_at", Moment))
    op.create_check_constraint(op.f("jobs_looks_left_check"), "jobs", "looks_left IS NULL OR state = 'in_doubt'")
    op.create_index("jobs_to_look_up", "jobs", ["ring_at"], postgresql_where=sa.text("looks_left > 0"))


def downgrade() -> None:
    op.drop_index("jobs_to_look_up", "jobs")
    op.drop_constraint(op.f("jobs_looks_left_check"), "jobs")
    op.drop_column("jobs", "absent_at")
    op.drop_column("jobs", "looks_left")
    op.drop_column("jobs", "quiet_at")

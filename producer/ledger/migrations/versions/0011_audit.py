"""Audit: operators' acts, seals over the events, an index by time, and erasing, which leaves an event's digest.

Code from before goes on. It seals nothing, and what people do by it is on record where it was before. Events from
before are sealed with the next event of their job, or never.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")
Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    _create_acts()
    _create_seals()
    op.create_index("events_by_time", "events", ["at"])
    for table in ("acts", "seals"):
        op.execute(f"""
            CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
        """)
    _let_erase()


def downgrade() -> None:
    op.execute("DROP TRIGGER events_unchanged ON events")
    op.execute("DROP FUNCTION refuse_all_but_erasing()")
    op.execute("DROP TRIGGER events_append_only ON events")
    op.execute("""
        CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)
    op.drop_index("events_by_time", "events")
    op.drop_table("seals")
    op.drop_table("acts")


def _create_acts() -> None:
    op.create_table(
        "acts",
        sa.Column("n", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", Moment, nullable=False, server_default=NOW),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("act", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("job_id", sa.Uuid),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("via", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("data", sa.JSON),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.CheckConstraint("octet_length(hash) = 32", name=op.f("acts_hash_check")),
    )
    op.create_index("acts_by_time", "acts", ["tenant", "at"])


def _create_seals() -> None:
    op.create_table(
        "seals",
        sa.Column("n", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", Moment, nullable=False, server_default=NOW),
        sa.Column("horizon", Moment, nullable=False),
        sa.Column("late", sa.JSON),
        sa.Column("jobs", sa.Integer, nullable=False),
        sa.Column("events", sa.Integer, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("acts", sa.BigInteger, nullable=False),
        sa.Column("acts_hash", sa.LargeBinary, nullable=False),
        sa.Column("previous", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("key_id", sa.Text),
        sa.Column("signature", sa.LargeBinary),
        sa.CheckConstraint("octet_length(hash) = 32", name=op.f("seals_hash_check")),
        sa.CheckConstraint("(key_id IS NULL) = (signature IS NULL)", name=op.f("seals_signature_check")),
    )


def _let_erase() -> None:
    op.execute("DROP TRIGGER events_append_only ON events")
    op.execute("""
        CREATE TRIGGER events_append_only BEFORE DELETE OR TRUNCATE ON events
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)
    op.execute("""
        CREATE FUNCTION refuse_all_but_erasing() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF ROW(new.job_id, new.seq, new.at, new.kind, new.attempt, new.fence, new.worker)
               IS NOT DISTINCT FROM ROW(old.job_id, old.seq, old.at, old.kind, old.attempt, old.fence, old.worker)
             AND CAST(new.data AS text)
               = '{"erased":"' || encode(sha256(convert_to(CAST(old.data AS text), 'UTF8')), 'hex') || '"}' THEN
            RETURN new;
          END IF;
          RAISE EXCEPTION 'events are only ever added' USING ERRCODE = 'insufficient_privilege';
        END $$
    """)
    op.execute("""
        CREATE TRIGGER events_unchanged BEFORE UPDATE ON events
        FOR EACH ROW EXECUTE FUNCTION refuse_all_but_erasing()
    """)

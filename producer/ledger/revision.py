"""Which schema a database has, and which one this code was written for. Workers ask without loading Alembic."""

from __future__ import annotations

from sqlalchemy import Engine, text

# The newest migration's; a test compares the two.
REVISION = "0014"

TABLE = text("SELECT to_regclass('alembic_version') IS NOT NULL")
CURRENT = text("SELECT version_num FROM alembic_version")


def revision_of(engine: Engine) -> str | None:
    """Return the database's revision; None where it was never migrated."""
    with engine.connect() as connection:
        return connection.execute(CURRENT).scalar() if connection.execute(TABLE).scalar() else None


def is_newer(revision: str | None) -> bool:
    """Whether newer code than this made a schema of that revision."""
    return revision is not None and revision > REVISION

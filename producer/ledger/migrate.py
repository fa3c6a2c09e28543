"""Bringing a database to this version's schema, from empty or from an older one."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine
from sqlalchemy.engine import Connection

from producer.ledger.engine import in_transaction
from producer.ledger.revision import is_newer

MIGRATIONS = Path(__file__).with_name("migrations")
HEAD = "head"
EMPTY = "base"

# Any two processes that migrate one database at once wait for one another; the number only has to be ours.
MIGRATION_LOCK = 0x5EEF007


def migrate(engine: Engine, revision: str = HEAD) -> None:
    """Move the schema up or down to `revision`, in one transaction: it lands whole or not at all.

    A schema that newer code has made is left as it is on the way to ``head``: that code's migrations only add what this
    one does not mind, and a deploy that goes back runs this, too.

    Args:
        engine: The database to change.
        revision: ``head``, ``base`` (nothing left; every job is gone) or a revision's name.
    """
    in_transaction(engine, lambda connection: _move(connection, revision))


def newest_migration() -> str:
    """Return the revision that `migrate` moves to by itself."""
    return str(_script().get_current_head())


def _move(connection: Connection, revision: str) -> None:
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
    # A migration may rewrite a large table; the bounds for a job's way are not for it.
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    current = MigrationContext.configure(connection).get_current_revision()
    if revision == HEAD and is_newer(current):
        return
    if _is_older(revision, current):
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)


def _is_older(revision: str, current: str | None) -> bool:
    if current is None or revision == HEAD:
        return False
    return revision == EMPTY or revision in {s.revision for s in _script().iterate_revisions(current, EMPTY)}


def _script() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return ScriptDirectory.from_config(config)

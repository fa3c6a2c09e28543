"""A ledger whose clock stands still until a test moves it.

The statements ask Postgres for the time by an unqualified name. In this database the names are looked up in ``public``
first, and there stand functions that read a table of one row. Nothing of the product knows.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine, text
from sqlalchemy.engine import Connection

SHADOWS = (
    "CREATE TABLE clock (now timestamptz NOT NULL)",
    "INSERT INTO clock VALUES ('2026-01-01T00:00:00Z')",
    "CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT now FROM public.clock'",
    "CREATE FUNCTION statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT now FROM public.clock'",
)
# Unless it is named, pg_catalog is searched before all others.
SEARCH = "SET search_path = public, pg_catalog"
DEFAULTS = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = 'public' AND column_default = 'clock_timestamp()'
"""


def stop_the_clock(engine: Engine) -> None:
    """Put the clock of a migrated database into the tests' hands; connections opened from now on see it so."""
    with engine.connect() as connection:
        # A default was bound to Postgres's own clock as its table was made.
        bound = connection.execute(text(DEFAULTS)).all()
        assert bound
        for statement in SHADOWS:
            connection.execute(text(statement))
        database = connection.execute(text("SELECT quote_ident(current_database())")).scalar_one()
        connection.execute(text(f"ALTER DATABASE {database} {SEARCH}"))
        connection.execute(text(SEARCH))
        for table, column in bound:
            connection.execute(text(f"ALTER TABLE {table} ALTER {column} SET DEFAULT clock_timestamp()"))
    engine.dispose()


def set_clock(connection: Connection, now: datetime) -> None:
    """Move the clock, for every connection."""
    connection.execute(text("UPDATE clock SET now = :now"), {"now": now})

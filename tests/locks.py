"""Seeing that somebody waits for what somebody else has locked, so that a test goes on exactly then."""

from __future__ import annotations

from sqlalchemy import Engine, text

WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


def waiting_for_locks(engine: Engine) -> int:
    """Return how many sessions of a database wait for a lock."""
    with engine.connect() as connection:
        return int(connection.execute(WAITING).scalar_one())

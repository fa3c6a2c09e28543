"""What all tables share: their metadata, with the names of constraints, and the clock."""

from __future__ import annotations

from sqlalchemy import DateTime, MetaData, text

__all__ = ["NOW", "Timestamp", "metadata"]

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

NOW = text("clock_timestamp()")  # the database's clock is the only one that decides anything
Timestamp = DateTime(timezone=True)

"""What a process does with itself at the places where it parks."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import Connection


def prove_alive(connection: Connection) -> None:
    """Ask something over the connection: one that was cut after a commit fails here, as before its answer."""
    driver: Any = connection.connection.dbapi_connection
    with driver.cursor() as cursor:
        try:
            cursor.execute("SELECT 1")
        except Exception as error:
            connection.invalidate(error)
            raise _lost(error) from error


def _lost(error: Exception) -> Exception:
    from sqlalchemy.exc import OperationalError  # noqa: PLC0415  a failure's alone

    return OperationalError("SELECT 1", None, error, connection_invalidated=True)

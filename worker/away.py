"""What an error of the ledger's means to who writes: it is away, somebody else has the row, or the row is at fault."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from producer.ledger.engine import READ_ONLY

# Lock not available, deadlock, serialisation failure, statement timeout.
COLLISIONS = frozenset({"55P03", "40P01", "40001", "57014"})
# The server goes away, has no room (a full disk among them), or is a standby by now: SQLSTATE's classes.
AWAY_CLASSES = ("08", "53", "57")


def is_away(error: Exception) -> bool:
    """Whether the ledger is away, so that nothing is known of what was being written."""
    if not isinstance(error, DBAPIError):
        return False
    code = _code(error)
    if error.connection_invalidated or isinstance(error, InterfaceError) or code is None or code == READ_ONLY:
        return True
    return code.startswith(AWAY_CLASSES) and code not in COLLISIONS


def is_collision(error: Exception) -> bool:
    """Whether somebody else had a lock, so that the same may be written a moment later."""
    return _code(error) in COLLISIONS


def as_operational(error: Exception) -> OperationalError:
    """Return the error as one of the class that says so: for a standby, say, the driver has another.

    Callers take the others to mean that the row is at fault.
    """
    if isinstance(error, OperationalError):
        return error
    away = OperationalError(getattr(error, "statement", None), None, getattr(error, "orig", None) or error)
    away.__cause__ = error
    return away


def _code(error: Exception) -> str | None:
    return getattr(getattr(error, "orig", None), "pgcode", None)

"""Connections to the ledger, set up so that none of them can hang for ever or lie about durability."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal, TypeVar

from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import (
    DatabaseError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from producer.errors import LedgerUnavailable, SchemaBehind

CONNECT_SECONDS = 5
STATEMENT_MILLISECONDS = 30_000
LOCK_MILLISECONDS = 5_000
IDLE_IN_TRANSACTION_MILLISECONDS = 15_000
TRIES = 3
# Workers listen here for jobs that became due and that nobody rings.
WAKE_CHANNEL = "surefoot_due"
READ_ONLY = "25006"  # a standby, or a primary that is one by now
NOT_THERE = ("42P01", "42703")  # a table, or a column: our statements ask for none but those of this version's schema
COLLISIONS = ("40P01", "40001")  # deadlock, serialisation failure: the transaction is gone, and another may pass

T = TypeVar("T")
Isolation = Literal["READ COMMITTED", "REPEATABLE READ"]


def open_engine(url: str, *, connections: int, name: str) -> Engine:
    """Return an engine with at most `connections` connections; none is opened yet.

    Statements run in autocommit unless a caller begins a transaction: one statement is one transaction, without
    the two round trips that would frame it.

    Args:
        url: ``postgresql://…``; psycopg2 is the driver whatever the URL says.
        connections: The most that this engine will ever hold open.
        name: Shown as ``application_name`` in ``pg_stat_activity``.
    """
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg2"),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=STATEMENT_MILLISECONDS / 1000,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,  # an error's text is logged, and the parameters are somebody's data
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "application_name": name,
            # A peer that vanished without a word is noticed in about ten seconds, not in hours.
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
        },
    )
    event.listen(engine, "connect", _bound_waits)
    _dispose_after_fork(engine)
    return engine


def _bound_waits(connection: object, _record: object) -> None:
    # SET, not the startup packet's options: connection poolers refuse those.
    with connection.cursor() as cursor:  # type: ignore[attr-defined]  # a psycopg2 connection
        cursor.execute(
            f"SET statement_timeout = {STATEMENT_MILLISECONDS}; SET lock_timeout = {LOCK_MILLISECONDS};"
            f" SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MILLISECONDS}; SET jit = off"
        )


def _dispose_after_fork(engine: Engine) -> None:
    """Let a forked child open connections of its own: two processes on one socket would garble each other."""
    reference = weakref.ref(engine)

    def forget() -> None:
        inherited = reference()
        if inherited is not None:
            inherited.dispose(close=False)

    os.register_at_fork(after_in_child=forget)


def in_transaction(engine: Engine, work: Callable[[Connection], T], *, isolation: Isolation = "READ COMMITTED") -> T:
    """Do `work` in one transaction, committed when it returns."""
    with engine.connect() as connection, transaction_on(connection, isolation=isolation):
        return work(connection)


@contextmanager
def transaction_on(connection: Connection, *, isolation: Isolation = "READ COMMITTED") -> Iterator[None]:
    """Make one transaction of a block, on a connection in autocommit; taken back where the block raises.

    Within such a block, another is part of it. It begins by a statement, as which a connection that had died while idle
    shows in SQLAlchemy's words: what the driver has for that says so in its own, and leaves the connection in the pool.
    """
    if _has_begun(connection):
        yield
        return
    connection.exec_driver_sql(f"BEGIN ISOLATION LEVEL {isolation}")
    try:
        yield
    except BaseException:
        with suppress(SQLAlchemyError):  # the connection is gone, and the transaction with it
            connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


def in_a_transaction(connection: Connection) -> bool:
    """Whether what is done on a connection, ours or a caller's, is taken back with its transaction."""
    return not getattr(connection.connection.dbapi_connection, "autocommit", False) or _has_begun(connection)


def _has_begun(connection: Connection) -> bool:
    info = getattr(connection.connection.dbapi_connection, "info", None)  # a caller's driver may have none
    return info is not None and info.transaction_status != TRANSACTION_STATUS_IDLE


def retrying(work: Callable[[], T]) -> T:
    """Do `work`, which must be safe to repeat, again where its connection was lost or it met another's lock.

    A pooled connection that died while idle shows only when it is used; the first failure empties the pool, so
    the next try connects anew.

    Raises:
        LedgerUnavailable: After three tries.
        SchemaBehind: At once, where a table or a column is not there.
    """
    for tried in range(1, TRIES + 1):
        try:
            return work()
        except PoolTimeout as error:
            raise LedgerUnavailable(f"Postgres did not do in time what others asked: {error}") from error
        except InternalError as error:
            if getattr(error.orig, "pgcode", None) != READ_ONLY:
                raise
            raise LedgerUnavailable(f"Postgres takes no writes: {error.orig}".strip()) from error
        except ProgrammingError as error:
            if getattr(error.orig, "pgcode", None) not in NOT_THERE:
                raise
            missing = str(error.orig).partition("\n")[0]
            raise SchemaBehind(
                f"the ledger's schema is not this version's: run surefoot migrate ({missing})"
            ) from error
        except DBAPIError as error:
            gone = is_disconnect(error)
            if not gone and not isinstance(error, (OperationalError, InterfaceError)):
                raise
            if tried == TRIES or not (gone or getattr(error.orig, "pgcode", None) in COLLISIONS):
                problem = "cannot be reached" if gone else "did not do it in time"
                raise LedgerUnavailable(f"Postgres {problem}: {error.orig}".strip()) from error
    raise AssertionError("unreachable: the last try returns or raises")


def is_disconnect(error: DBAPIError) -> bool:
    """Whether the connection is gone, so that nothing is known of what it was doing."""
    if error.connection_invalidated:
        return True
    # What libpq says without a code is of the connection; the driver has its base class for it where the socket looks
    # open still. Its other classes without one are of what it was given.
    without_code = getattr(error.orig, "pgcode", None) is None
    said_by_libpq = isinstance(error, (OperationalError, InterfaceError)) or type(error) is DatabaseError
    return (said_by_libpq and without_code) or "could not connect" in str(error.orig)

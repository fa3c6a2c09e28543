"""A ledger that is away, full, read-only, or was restarted: said in a typed error, or not to be noticed at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import closing

import psycopg2
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from producer import LedgerUnavailable, Producer, SchemaBehind, Settings
from producer.ledger.engine import retrying

ADD = {"a": 1, "b": 2}
KILL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'surefoot-producer'"
# Each takes another way to a connection of the pool.
WAYS: dict[str, Callable[[Producer], object]] = {
    "one": lambda producer: producer.enqueue("test.add", ADD, idempotency_key="after").id,
    "a batch": lambda producer: producer.enqueue_many([{"action": "test.add", "params": ADD}] * 2),
    "a look": lambda producer: producer.find("test.add", "before"),
    "an explanation": lambda producer: producer.explain_key("before", action="test.add"),
    "verifying": lambda producer: producer.verify().sealed_until is None,
    "an act": lambda producer: producer.cancel(producer.find("test.add", "before").id),  # type: ignore[union-attr]  # it is there
}


def test_a_ledger_that_is_away_is_a_typed_error(settings: Settings) -> None:
    away = Producer(Settings(database_url="postgresql://nobody@127.0.0.1:1/none", redis_url=settings.redis_url))
    with pytest.raises(LedgerUnavailable, match="Postgres cannot be reached"):
        away.enqueue("test.add", ADD)


def test_a_ledger_that_takes_no_writes_is_said_to_be_unavailable(engine: Engine, lone_producer: Producer) -> None:
    lone_producer.enqueue("test.add", ADD, idempotency_key="before")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {engine.url.database} SET default_transaction_read_only = on")
    lone_producer.close()  # so that it connects anew
    with pytest.raises(LedgerUnavailable, match="Postgres takes no writes"):
        lone_producer.enqueue("test.add", ADD, idempotency_key="after")
    with pytest.raises(LedgerUnavailable, match="Postgres takes no writes"):
        lone_producer.find("test.add", "before").cancel()  # type: ignore[union-attr]  # it is there


@pytest.mark.parametrize("way", WAYS)
def test_a_schema_of_older_code_is_said_to_need_migrating(lone_producer: Producer, engine: Engine, way: str) -> None:
    lone_producer.enqueue("test.add", ADD, idempotency_key="before")
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs RENAME COLUMN idempotency_key TO not_yet")
        connection.exec_driver_sql("ALTER TABLE events RENAME COLUMN kind TO not_yet")
    lone_producer.close()  # so that it connects anew
    with pytest.raises(SchemaBehind, match=r"run surefoot migrate .column .* does not exist"):
        WAYS[way](lone_producer)


def test_a_ledger_that_was_never_migrated_is_said_to_need_it(settings: Settings, empty_url: str) -> None:
    empty = Producer(dataclasses.replace(settings, database_url=empty_url))
    with closing(empty), pytest.raises(SchemaBehind, match=r'run surefoot migrate .relation "[a-z_]+" does not exist'):
        empty.enqueue("test.add", ADD)


def test_a_pool_that_stays_exhausted_is_said_to_be_an_unavailable_ledger(engine: Engine) -> None:
    narrow = create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    with narrow.connect(), pytest.raises(LedgerUnavailable, match="did not do in time what others asked"):
        retrying(narrow.connect)
    narrow.dispose()


def lost(error: type[psycopg2.Error], *, noticed: bool) -> DBAPIError:
    """Return what SQLAlchemy makes of a lost connection that the driver has this class for."""
    made = DBAPIError.instance(
        "SELECT",
        None,
        error("server closed the connection unexpectedly"),
        psycopg2.Error,
        connection_invalidated=noticed,
    )
    assert isinstance(made, DBAPIError)
    return made


# Where the socket looks open still as libpq gives the connection up, the driver has no class of its own for it. No test
# has made that happen at will; a storm did.
@pytest.mark.parametrize("noticed", [True, False])
@pytest.mark.parametrize("error", [psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.DatabaseError])
def test_a_connection_that_is_lost_is_tried_anew_and_then_said_whatever_class_the_driver_has_for_it(
    error: type[psycopg2.Error],
    noticed: bool,  # noqa: FBT001  one of two facts
) -> None:
    tries = iter([lost(error, noticed=noticed), None, *[lost(error, noticed=noticed)] * 3])

    def work() -> str:
        if (failure := next(tries)) is not None:
            raise failure
        return "done"

    assert retrying(work) == "done"
    with pytest.raises(LedgerUnavailable, match="cannot be reached: server closed the connection"):
        retrying(work)
    assert next(tries, "none is left") == "none is left"


@pytest.mark.parametrize("error", [psycopg2.ProgrammingError, psycopg2.DataError, psycopg2.IntegrityError])
def test_what_the_driver_cannot_take_is_no_lost_connection(error: type[psycopg2.Error]) -> None:
    def work() -> None:
        raise lost(error, noticed=False)

    with pytest.raises(DBAPIError) as raised:
        retrying(work)
    assert isinstance(raised.value.orig, error)


@pytest.mark.parametrize("way", WAYS)
def test_connections_that_died_while_idle_are_replaced_without_an_error(
    lone_producer: Producer, engine: Engine, way: str
) -> None:
    lone_producer.enqueue("test.add", ADD, idempotency_key="before")
    WAYS[way](lone_producer)  # what it leaves behind on a connection must not matter either
    with engine.connect() as connection:
        assert connection.execute(text(KILL)).all()
    assert WAYS[way](lone_producer)

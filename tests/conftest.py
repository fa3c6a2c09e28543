"""Real servers for every test that needs one: a database of its own, cloned in milliseconds, and a Redis number.

One Postgres and one Valkey run for the whole session. Workers are real `celery` processes.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psycopg2
import pytest
import redis
from psycopg2 import sql
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from producer import Producer, Settings
from producer.ledger.engine import open_engine
from producer.ledger.migrate import migrate
from tests.houses import ACTION_MODULES, House, WorkerProcess, house_of, start_worker
from worker.dev.servers import Servers, servers

numbers = itertools.count(1)

# A shell starts what it runs in the background with interrupts ignored, and so would every process of the tests be.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples every time, so that a run tells of the change that it tests and not of its luck, and no word on how
# long examples take on a busy machine. `--hypothesis-profile=default` looks for new ones.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def dev_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with servers(tmp_path_factory.mktemp("servers")) as running:
        yield running


@pytest.fixture(scope="session")
def migrated(dev_servers: Servers) -> str:
    """A database at the head revision, which nobody connects to: the template of every test's own."""
    url = _create_database(dev_servers, "migrated")
    engine = open_engine(url, connections=1, name="tests")
    migrate(engine)
    engine.dispose()
    return "migrated"


@pytest.fixture
def empty_url(dev_servers: Servers) -> Iterator[str]:
    """A database with nothing in it."""
    name = f"empty_{next(numbers)}"
    yield _create_database(dev_servers, name)
    _drop_database(dev_servers, name)


@pytest.fixture
def settings(dev_servers: Servers, migrated: str) -> Iterator[Settings]:
    """A migrated database and an empty Redis number of this test's own."""
    yield from _own(dev_servers, migrated)


@pytest.fixture(scope="module")
def module_settings(dev_servers: Servers, migrated: str) -> Iterator[Settings]:
    """The same, shared by a module's tests: starting a worker takes seconds."""
    yield from _own(dev_servers, migrated)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    made = open_engine(settings.database_url, connections=5, name="tests")
    yield made
    made.dispose()


@pytest.fixture
def producer(settings: Settings) -> Iterator[Producer]:
    made = Producer(settings)
    yield made
    made.close()


@pytest.fixture(scope="module")
def house(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A producer and one running worker with two processes, shared by the module's tests."""
    with house_of(module_settings, tmp_path_factory.mktemp("house")) as made:
        yield made


@pytest.fixture
def own_house(settings: Settings, tmp_path: Path) -> Iterator[House]:
    """A producer and a worker of this test's own, to be killed or stopped; its actions run in child processes."""
    with house_of(settings, tmp_path, pool="prefork") as made:
        yield made


@pytest.fixture
def lone_producer(settings: Settings) -> Iterator[Producer]:
    """A producer whose actions are published although no worker runs."""
    from tasks import load  # noqa: PLC0415
    from worker.lifecycle import publish  # noqa: PLC0415

    made = open_engine(settings.database_url, connections=1, name="tests")
    with made.connect() as connection:
        publish(connection, list(load(ACTION_MODULES).values()))
    made.dispose()
    producer = Producer(settings)
    yield producer
    producer.close()


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Iterator[WorkerProcess]:
    """A worker of this test's own, beside `lone_producer`."""
    process = start_worker(settings, tmp_path / "worker.log")
    yield process
    process.stop()


def _own(dev_servers: Servers, migrated: str) -> Iterator[Settings]:
    number = next(numbers)
    name = f"test_{number}"
    database_url = _create_database(dev_servers, name, template=migrated)
    redis_url = dev_servers.redis_url.rsplit("/", 1)[0] + f"/{number % 15 + 1}"
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    yield Settings(database_url=database_url, redis_url=redis_url)
    _drop_database(dev_servers, name)


def _create_database(dev_servers: Servers, name: str, template: str = "template0") -> str:
    _administer(dev_servers, sql.SQL("CREATE DATABASE {} TEMPLATE {}"), name, template)
    return make_url(dev_servers.database_url).set(database=name).render_as_string(hide_password=False)


def _drop_database(dev_servers: Servers, name: str) -> None:
    _administer(dev_servers, sql.SQL("DROP DATABASE {} WITH (FORCE)"), name)


def _administer(dev_servers: Servers, statement: sql.SQL, *names: str) -> None:
    url = make_url(dev_servers.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement.format(*map(sql.Identifier, names)))
    finally:
        connection.close()

"""Where a measurement plays: a database of its own and empty Redis numbers, on servers that all peers share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import redis
from psycopg2 import sql
from sqlalchemy.engine import make_url

from producer.ledger.engine import open_engine
from producer.ledger.migrate import migrate
from tasks import load
from worker.dev.servers import Servers
from worker.lifecycle import publish

TEMPLATE = "bench_migrated"
ACTIONS = "tests.benchmarks.actions"

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Stage:
    """One measurement's servers.

    Attributes:
        database_url: Migrated, and with the benchmark's actions published.
        redis_url: An empty number, for the broker.
        results_url: Another one, for Celery's Redis results.
        folder: For the workers' logs.
        server_pids: Of Postgres's and Valkey's first processes, by name.
    """

    database_url: str
    redis_url: str
    results_url: str
    folder: Path
    server_pids: Mapping[str, int]

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask this stage's database; a statement without rows returns none."""
        return _ask(self.database_url, sql.SQL(statement))

    def connect(self) -> psycopg2.extensions.connection:
        """Return a connection to this stage's database, in autocommit, for whoever asks it often."""
        return _connect(self.database_url)


@dataclass(frozen=True, slots=True)
class Ground:
    """The servers that all measurements play on, one after another."""

    running: Servers
    folder: Path

    @contextmanager
    def stage(self) -> Iterator[Stage]:
        """Give a measurement a ledger in which nothing was ever done, and drop it afterwards."""
        with self.database() as url:
            yield self.on(url)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make an empty ledger, and drop it afterwards."""
        name = f"bench_{next(_numbers)}"
        url = _create(self.running, name, TEMPLATE)
        try:
            yield url
        finally:
            _ask(self.running.database_url, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def on(self, database_url: str) -> Stage:
        """Set a stage on a ledger that is there already."""
        base = self.running.redis_url.rsplit("/", 1)[0]
        pids = {"Postgres": self.running.postgres_pid, "Valkey": self.running.redis_pid}
        made = Stage(database_url, f"{base}/1", f"{base}/2", self.folder, pids)
        for url in (made.redis_url, made.results_url):
            with redis.Redis.from_url(url) as client:
                client.flushdb()
        # What earlier peers wrote is on disk before the next is timed: nobody pays for his predecessor.
        _ask(self.running.database_url, sql.SQL("CHECKPOINT"))
        return made


def prepare(running: Servers) -> None:
    """Make the template of every stage's database."""
    url = _create(running, TEMPLATE, "template0")
    engine = open_engine(url, connections=1, name="bench")
    migrate(engine)
    with engine.connect() as connection:
        publish(connection, list(load((ACTIONS,)).values()))
    engine.dispose()
    _ask(url, sql.SQL("CREATE EXTENSION IF NOT EXISTS pg_stat_statements"))


def _create(running: Servers, name: str, template: str) -> str:
    names = map(sql.Identifier, (name, template))
    _ask(running.database_url, sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
    return make_url(running.database_url).set(database=name).render_as_string(hide_password=False)


def _ask(url: str, statement: sql.Composable) -> list[tuple[Any, ...]]:
    connection = _connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


def _connect(url: str) -> psycopg2.extensions.connection:
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(dsn)
    connection.autocommit = True  # databases are made and dropped outside transactions
    return connection

"""Where a measurement plays: a fresh database and empty Redis numbers, on servers that all peers share."""

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
# The transport keeps what was delivered and not yet acknowledged in this hash.
UNACKED = "unacked"
# It keeps one list for each of these priorities, the first under the queue's own name.
PRIORITY_STEPS = ("", "\x06\x163", "\x06\x166", "\x06\x169")

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Stage:
    """One measurement's servers.

    Attributes:
        database_url: Migrated, and with the benchmark's actions published; nothing else was ever in it.
        redis_url: An empty number, for the broker.
        results_url: Another one, for Celery's Redis results.
        folder: For the worker's log.
        server_pids: Of Postgres's and Valkey's first processes, by name.
    """

    database_url: str
    redis_url: str
    results_url: str
    folder: Path
    server_pids: Mapping[str, int]

    def unfinished(self, client: redis.Redis, queue: str) -> int:
        """Return how many messages wait in the queue or are not yet acknowledged.

        With late acknowledgement this is what has not ended, for every peer alike, whatever results it keeps.
        """
        pipeline = client.pipeline(transaction=True)
        for step in PRIORITY_STEPS:
            pipeline.llen(queue + step)
        pipeline.hlen(UNACKED)
        return sum(int(count) for count in pipeline.execute())

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask this stage's database; a statement without rows returns none."""
        return _ask(self.database_url, sql.SQL(statement))


def prepare(running: Servers) -> None:
    """Make the template of every stage's database."""
    url = _create(running, TEMPLATE, "template0")
    engine = open_engine(url, connections=1, name="bench")
    migrate(engine)
    with engine.connect() as connection:
        publish(connection, list(load((ACTIONS,)).values()))
    engine.dispose()
    _ask(url, sql.SQL("CREATE EXTENSION IF NOT EXISTS pg_stat_statements"))


@contextmanager
def stage(running: Servers, folder: Path) -> Iterator[Stage]:
    """Give a measurement a stage of its own, and take it down afterwards."""
    name = f"bench_{next(_numbers)}"
    database_url = _create(running, name, TEMPLATE)
    base = running.redis_url.rsplit("/", 1)[0]
    pids = {"Postgres": running.postgres_pid, "Valkey": running.redis_pid}
    made = Stage(database_url, f"{base}/1", f"{base}/2", folder, pids)
    for url in (made.redis_url, made.results_url):
        with redis.Redis.from_url(url) as client:
            client.flushdb()
    # What earlier peers wrote is on disk before the next is timed: nobody pays for his predecessor.
    _ask(running.database_url, sql.SQL("CHECKPOINT"))
    try:
        yield made
    finally:
        _ask(running.database_url, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _create(running: Servers, name: str, template: str) -> str:
    names = map(sql.Identifier, (name, template))
    _ask(running.database_url, sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
    return make_url(running.database_url).set(database=name).render_as_string(hide_password=False)


def _ask(url: str, statement: sql.Composable) -> list[tuple[Any, ...]]:
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(dsn)
    try:
        connection.autocommit = True  # databases are made and dropped outside transactions
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()

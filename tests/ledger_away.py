"""A ledger that is away for a while: its database takes no connections, and those that there were have ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import make_url

from producer import Settings
from producer.ledger.engine import open_engine
from worker.dev.servers import Servers


@contextmanager
def ledger_away(settings: Settings, dev_servers: Servers) -> Iterator[None]:
    """Have it be away for the block."""
    name = make_url(settings.database_url).database
    administration = open_engine(dev_servers.database_url, connections=1, name="tests")
    with administration.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.exec_driver_sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        try:
            yield
        finally:
            connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    administration.dispose()

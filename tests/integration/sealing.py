"""A ledger with a few histories, sealed by a sealer of the test's own; and somebody who may do everything to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import Connection

from producer import Producer
from producer.ledger.seals import Seal, SealKey
from worker import sealer
from worker.sealer import Sealer

LATER = datetime.now(UTC) + timedelta(days=1)
KEY = SealKey.of("k" * 32)


class Sealing:
    """Seals what there is, whenever it is told to."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch, key: SealKey | None = None) -> None:
        monkeypatch.setattr(sealer, "EVENTS_PER_SECOND", 1e9)
        self.engine, self.seals = engine, list[Seal]()
        self.sealer = Sealer(key, on_sealed=self.seals.append)
        self.look()

    def look(self) -> None:
        """Have the sealer look once."""
        with self.engine.connect() as connection:
            self.sealer.seal(connection)

    def seal(self) -> Seal:
        """Seal everything that was committed by now; return the last seal."""
        self.look()
        self.look()
        return self.seals[-1]


def history(producer: Producer, key: str) -> UUID:
    """Return a job with four events: accepted, asked for again twice, and cancelled."""
    for _ in range(3):
        job = producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key=key, run_at=LATER)
    job.cancel("not wanted")
    return job.id


@contextmanager
def superuser(engine: Engine) -> Iterator[Connection]:
    """Give the connection of somebody who owns the tables, with every trigger off."""
    with engine.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        yield connection
        connection.execute(text("SET session_replication_role = DEFAULT"))

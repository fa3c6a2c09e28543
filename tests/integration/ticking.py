"""Schedules that are due, and ticking them as a worker's relay does."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text

from producer import Producer
from worker.schedule import Ticker

PARAMS = {"a": 1, "b": 2}
# Hours, and its last tick was minutes ago, as its next is more than an hour away, longer than a suite takes: no test
# meets one that it has not made due.
EVERY = next(every for every in range(7200, 10800) if 600 < time.time() % every < 3000)
INTERVAL = timedelta(seconds=EVERY)
JOBS = text("""
SELECT j.idempotency_key AS key, j.state, d.params, d.input, d.reasoning, d.request_id, d.agent_id, j.priority, j.queue
FROM jobs j JOIN decisions d ON d.job_id = j.id ORDER BY j.idempotency_key
""")


def make_due(engine: Engine, name: str, *, late: int = 0) -> datetime:
    """Have nobody have looked at a schedule for its last tick, and so many before it; return the first of them."""
    with engine.connect() as connection:
        now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        tick = datetime.fromtimestamp(int(now.timestamp()) // EVERY * EVERY, UTC) - late * INTERVAL
        connection.execute(text("UPDATE schedules SET next_tick = :t WHERE name = :n"), {"t": tick, "n": name})
    return tick


def tick(engine: Engine, ticker: Ticker | None = None) -> float:
    """Tick once; return the seconds until there is more to do."""
    with engine.connect() as connection:
        return (ticker or Ticker(queue="actions")).tick(connection)


def jobs_made(engine: Engine) -> list[Any]:
    """Every job, by its key."""
    with engine.connect() as connection:
        return list(connection.execute(JOBS))


def keys_made(engine: Engine) -> list[str]:
    return [job.key for job in jobs_made(engine)]


def add(producer: Producer, name: str, **fields: Any) -> None:
    """Add a schedule of ``test.add``."""
    producer.schedules.add(name, "test.add", PARAMS, **({"every": EVERY} | fields))

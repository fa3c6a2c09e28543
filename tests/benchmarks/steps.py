"""One job's way, step by step in this process: each round trip's time, and what Postgres did with it.

No worker runs, so nothing competes with the step that is timed: these are costs, and the rates are what is left of
them when all compete for the machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from producer import Settings
from producer.client import Producer
from producer.envelope import Envelope, Request
from producer.ledger.accept import accept
from producer.ledger.engine import open_engine
from producer.ledger.reads import PublishedAction
from producer.ledger.states import State
from producer.ring import Bell, Ring
from producer.sealing import seal_by
from tests.benchmarks.stage import Stage
from worker.attempt import Attempt, Intent, Settlement
from worker.statements import Wanted, claim, intend, settle

ACTION = "bench.pure"
LEASE_SECONDS = 30.0
RING_SECONDS = 3.0
# Names each statement by words that no other has.
STATEMENTS = {
    "accept": "INSERT INTO decisions",
    "claim": "FROM claimed c JOIN decisions",
    "intend": "repeatable_until = coalesce",
    "settle": "UPDATE decisions",
}

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Step:
    """One step's median times, in microseconds.

    Attributes:
        took: As its caller sees it.
        planning: In Postgres; None where it has no statement.
        executing: In Postgres, without the commit.
    """

    name: str
    took: float
    planning: float | None = None
    executing: float | None = None


def time_steps(stage: Stage, jobs: int) -> list[Step]:
    """Take `jobs` jobs through every step, one after another, half of them as unsafe ones."""
    stage.query(f"ALTER DATABASE {make_url(stage.database_url).database} SET pg_stat_statements.track_planning = on")
    stage.query("SELECT pg_stat_statements_reset()")
    engine = open_engine(stage.database_url, connections=1, name="bench")
    try:
        seen = [_empty(engine, jobs), *_producer_steps(stage, engine, jobs), *_worker_steps(stage, engine)]
    finally:
        engine.dispose()
    inside = _inside_postgres(stage)
    return [Step(name, took, *inside.get(name.split()[0], (None, None))) for name, took in seen]


def _empty(engine: Engine, jobs: int) -> tuple[str, float]:
    with engine.connect() as connection:
        took, _ = _timed(lambda _: connection.exec_driver_sql("SELECT 1").scalar(), range(jobs))
    return "an empty round trip", took


def _producer_steps(stage: Stage, engine: Engine, jobs: int) -> list[tuple[str, float]]:
    producer = Producer(Settings(database_url=stage.database_url, redis_url=stage.redis_url))
    action = producer.actions()[ACTION]
    producer.close()
    bell = Bell(stage.redis_url, timeout_seconds=RING_SECONDS)
    sealed, envelopes = _timed(lambda number: _sealed(action, number), range(jobs))
    with engine.connect() as connection:
        accepted, _ = _timed(lambda envelope: accept(connection, [envelope], rings=True, prepared=True), envelopes)
    rung, _ = _timed(lambda envelope: bell.ring_now([_ring(envelope)]), envelopes)
    return [("seal, params checked", sealed), ("accept", accepted), ("ring", rung)]


def _sealed(action: PublishedAction, number: int) -> Envelope:
    request = Request(action=action.name, params={"number": number}, idempotency_key=f"step-{number}")
    return seal_by({action.name: action}, request, tenant="default", queue="actions")


def _ring(envelope: Envelope) -> Ring:
    return Ring(
        envelope.id, envelope.action, envelope.queue, envelope.priority, envelope.traceparent, envelope.request_id
    )


def _worker_steps(stage: Stage, engine: Engine) -> list[tuple[str, float]]:
    me = ("bench:1", LEASE_SECONDS)
    ids = [UUID(row[0]) for row in stage.query("SELECT id::text FROM jobs ORDER BY id")]
    with engine.connect() as connection:
        claimed, attempts = _timed(lambda job_id: claim(connection, *me, [Wanted(ACTION, 1, job_id)])[0], ids)
        pure, _ = _timed(lambda a: intend(connection, *me, [_intent(a, "pure", None)]), attempts[::2])
        unsafe, _ = _timed(lambda a: intend(connection, *me, [_intent(a, "unsafe", 0.0)]), attempts[1::2])
        settled, answers = _timed(lambda a: settle(connection, me[0], [_settlement(a)]), attempts)
    if any(list(answer.values()) != ["settled"] for answer in answers):
        raise RuntimeError("a step did not do its work, so its time means nothing")
    return [
        ("claim", claimed),
        ("intend `pure`, not waiting for the disk", pure),
        ("intend `unsafe`, on disk", unsafe),
        ("settle", settled),
    ]


def _intent(attempt: Attempt, effect: str, repeat_seconds: float | None) -> Intent:
    facts = {"effect": effect, "downstream_key": f"{attempt.job_id}:1", "timeout": 60.0}
    return Intent(job_id=attempt.job_id, fence=attempt.fence, effect=effect, repeat_seconds=repeat_seconds, data=facts)


def _settlement(attempt: Attempt) -> Settlement:
    return Settlement(
        job_id=attempt.job_id,
        fence=attempt.fence,
        attempt=attempt.number,
        was=State.RUNNING,
        becomes=State.SUCCEEDED,
        kind="succeeded",
        result=attempt.params["number"],
        latency_ms=0.1,
        data={"why": "succeeded"},
    )


def _timed(step: Callable[[T], R], over: Iterable[T]) -> tuple[float, list[R]]:
    """Return the median time of one call in microseconds, and what the calls returned."""
    taken, returned = [], []
    for each in over:
        began = time.perf_counter()
        returned.append(step(each))
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e6, returned


def _inside_postgres(stage: Stage) -> dict[str, tuple[Any, Any]]:
    """Return each statement's planning and execution time per call, in microseconds."""
    found = {}
    for name, words in STATEMENTS.items():
        rows = stage.query(
            "SELECT total_plan_time * 1000 / calls, total_exec_time * 1000 / calls FROM pg_stat_statements"
            " WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
            f" AND query LIKE '%{words}%' ORDER BY calls DESC LIMIT 1"
        )
        if rows:
            found[name] = rows[0]
    return found

"""A worker's writer, whose statements a test can count, and hold back while further steps gather."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.engine import Connection

from producer import Producer, State
from producer.job import Job
from tests.houses import PATIENCE_SECONDS, until
from tests.integration.test_statements import intent, settlement, writer_of
from worker.attempt import Attempt, Intent, Settlement
from worker.statements import Granted, Settled, Wanted
from worker.writer import Writer

WORKER = "w1"
# Less than a test has: a step that waits cannot be cancelled.
STEP_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Statement:
    """One that was sent, or is about to be.

    Attributes:
        name: The kind of step: claim, intend, settle.
        rows: How many it has.
    """

    name: str
    rows: int


@dataclass(slots=True)
class Statements:
    """What a writer sends, in order."""

    sent: list[Statement] = field(default_factory=list)
    _free: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._free.set()

    def rows(self, name: str) -> list[int]:
        """How many rows each statement of a kind had."""
        return [statement.rows for statement in self.sent if statement.name == name]

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Hold back the next one, and with it all further ones, until the end of the block."""
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def send(self, name: str, rows: Sequence[Any]) -> None:
        """Note one that is about to be sent, and wait while they are held back."""
        self.sent.append(Statement(name, len(rows)))
        assert self._free.wait(PATIENCE_SECONDS)


class WatchedWriter(Writer):
    """A writer that says what it is about to send."""

    def __init__(self, engine: Engine, statements: Statements, **options: Any) -> None:
        self.statements = statements
        super().__init__(engine, **options)

    def _write_claims(self, connection: Connection, wanted: Sequence[Wanted]) -> dict[UUID, Attempt | None]:
        self.statements.send("claim", wanted)
        return super()._write_claims(connection, wanted)

    def _write_intents(self, connection: Connection, intents: Sequence[Intent]) -> dict[UUID, Granted]:
        self.statements.send("intend", intents)
        return super()._write_intents(connection, intents)

    def _write_settlements(self, connection: Connection, settlements: Sequence[Settlement]) -> dict[UUID, Settled]:
        self.statements.send("settle", settlements)
        return super()._write_settlements(connection, settlements)


@dataclass(frozen=True, slots=True)
class Hands:
    """A writer and what it sent."""

    writer: Writer
    statements: Statements

    async def claim(self, *jobs: Job) -> list[UUID]:
        """Claim jobs in one step; return those that it got."""
        attempts = await self.writer.claim([Wanted("test.add", 1, job.id) for job in jobs])
        return [attempt.job_id for attempt in attempts]

    async def intend(self, attempt: Attempt) -> str:
        return await self.writer.intend(intent(attempt), seconds_left=patience())

    async def settle(
        self, attempt: Attempt, *, seconds_left: Callable[[], float] | None = None, **fields: Any
    ) -> Settled:
        return await self.writer.settle(outcome(attempt, **fields), seconds_left=seconds_left or patience())

    async def gathered(self, first: Coroutine[Any, Any, Any], *others: Coroutine[Any, Any, Any]) -> list[Any]:
        """Take a step, and others that all come to wait while its statement is under way; return every answer."""
        return list(await asyncio.gather(*await self.begun(first, *others), return_exceptions=True))

    async def begun(
        self, first: Coroutine[Any, Any, Any], *others: Coroutine[Any, Any, Any]
    ) -> list[asyncio.Task[Any]]:
        """Do the same without waiting for the answers."""
        sent = len(self.statements.sent)
        with self.statements.held_back():
            tasks = [asyncio.create_task(first)]
            await asyncio.to_thread(until, lambda: len(self.statements.sent) > sent)
            tasks += [asyncio.create_task(step) for step in others]
            await asyncio.sleep(0)  # each hands in what it has to write
        return tasks


def hands(engine: Engine, **options: Any) -> Hands:
    """Make a writer; `engine` is for it alone."""
    statements = Statements()
    return Hands(WatchedWriter(engine, statements, worker=WORKER, lease_seconds=30.0, **options), statements)


def patience() -> Callable[[], float]:
    """Say how long the ledger may be waited for from now on: for as long as a test has."""
    until = time.monotonic() + STEP_SECONDS
    return lambda: until - time.monotonic()


def enqueued(producer: Producer, count: int) -> list[Job]:
    """Enqueue jobs to be claimed; sorted by id, as rows are locked."""
    requests: Iterable[dict[str, Any]] = (
        {"action": "test.add", "params": {"a": n, "b": 0}, "idempotency_key": f"k{n}"} for n in range(count)
    )
    return sorted(producer.enqueue_many(list(requests)), key=lambda job: job.id)


def running(engine: Engine, jobs: Sequence[Job]) -> list[Attempt]:
    """Take jobs as far as their intent, by statements of their own."""
    hand = writer_of(engine, WORKER)
    attempts = sorted(hand.claim("test.add", 1, [job.id for job in jobs]), key=lambda attempt: attempt.job_id)
    assert set(hand.intend([intent(attempt) for attempt in attempts]).values()) == {"intended"}
    return attempts


def outcome(attempt: Attempt, **fields: Any) -> Settlement:
    """Say how an attempt ended: well, unless told otherwise."""
    return settlement(attempt, **({"result": 1} | fields))


def history(job: Job) -> list[str]:
    """The kinds of a job's events, in order."""
    return [event.kind for event in job.events]


SUCCEEDED = ["accepted", "claimed", "intended", str(State.SUCCEEDED)]

"""A producer of a storm: a process that asks for jobs through the client library, on several threads, without end.

    python -m tests.chaos.storm.producing NAME FOLDER SEED PER_SECOND

It writes `history.jsonl` and `cancels.jsonl` of the folder, and does as `tests.chaos.storm.deadly` says. Where
SUREFOOT_API_URL is set it asks over HTTP.
"""

from __future__ import annotations

import heapq
import itertools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.exc import SQLAlchemyError

from producer import Producer, Settings
from producer.envelope import Request
from producer.errors import RequestRefused, SurefootError
from producer.http import HttpProducer
from producer.job import Job
from producer.ledger.engine import open_engine
from tests.chaos.evidence import Call, Cancel
from tests.chaos.evidence_folder import Appender
from tests.chaos.storm.asks_world import RUN
from tests.chaos.storm.deadly import obey
from tests.chaos.storm.load import Load, Order, Wanted
from tests.chaos.storm.prints import fingerprint

THREADS = 3
# What was not answered is asked for again, as a service does, but not at once.
AGAIN_SECONDS = 0.5
# For how long one that asks over HTTP tries again by itself.
PATIENCE_SECONDS = 5.0

calls = itertools.count(1)


@dataclass(slots=True)
class Asking:
    """One thread's: asks, writes down what it was answered, asks again for what was not."""

    name: str
    producer: Producer | HttpProducer
    load: Load
    history: Appender
    cancels: Appender
    every: float
    stopping: threading.Event
    unanswered: deque[tuple[float, Wanted]] = field(default_factory=deque)
    to_cancel: list[tuple[float, str]] = field(default_factory=list)

    def run(self) -> None:
        """Ask until told to stop."""
        due = time.monotonic()
        while not self.stopping.is_set():
            self._cancel_what_is_due()
            self.ask(self._next())
            due = max(due + self.every, time.monotonic())  # what was missed is not made up for
            self.stopping.wait(due - time.monotonic())

    def ask(self, order: Order) -> None:
        """Ask for it, with a line in the history before and one after for each request."""
        asked = [_call(self.name, each) for each in order.requests]
        self.history.add(*asked)
        try:
            ends = [_answered(call, job) for call, job in zip(asked, self._enqueue(order), strict=True)]
        except RequestRefused as error:
            ends = [_ended(call, "fail", error) for call in asked]
        except (SurefootError, SQLAlchemyError) as error:  # it may have been accepted
            ends = [_ended(call, "info", error) for call in asked]
            again = time.monotonic() + AGAIN_SECONDS
            self.unanswered.extend((again, each) for each in order.requests)
        self.history.add(*ends)
        for end, wanted in zip(ends, order.requests, strict=True):
            if end.outcome == "created" and wanted.cancel_in is not None:
                heapq.heappush(self.to_cancel, (time.monotonic() + wanted.cancel_in, str(end.job_id)))

    def _next(self) -> Order:
        if self.unanswered and self.unanswered[0][0] <= time.monotonic():
            return Order("single", (self.unanswered.popleft()[1],))
        return self.load.next()

    def _enqueue(self, order: Order) -> Sequence[Job]:
        requests = [_request(each) for each in order.requests]
        if order.how == "batch":
            return self.producer.enqueue_many(requests, conflicts="return")
        if order.how == "single" or isinstance(self.producer, HttpProducer):  # who has no ledger has no transaction
            return [self.producer.enqueue_many([requests[0]])[0]]
        engine = open_engine(self.producer.settings.database_url, connections=1, name="surefoot-producer")
        try:
            with engine.connect().execution_options(isolation_level="READ COMMITTED") as own, own.begin():
                return self.producer.enqueue_many(requests, connection=own)
        finally:
            engine.dispose()

    def _cancel_what_is_due(self) -> None:
        while self.to_cancel and self.to_cancel[0][0] <= time.monotonic():
            job_id = heapq.heappop(self.to_cancel)[1]
            line: dict[str, Any] = {"process": self.name, "call": next(calls), "job_id": job_id}
            self.cancels.add(Cancel(at=time.time(), op="invoke", answer=None, error=None, **line))
            try:
                answer = self.producer.cancel(job_id, reason="nobody wants it any more")
            except (SurefootError, SQLAlchemyError) as error:
                self.cancels.add(Cancel(at=time.time(), op="info", answer=None, error=_said(error), **line))
            else:
                self.cancels.add(Cancel(at=time.time(), op="ok", answer=answer, error=None, **line))


def _call(process: str, wanted: Wanted) -> Call:
    return Call(
        at=time.time(),
        process=process,
        op="invoke",
        call=next(calls),
        action=wanted.action,
        key=wanted.key,
        job_id=None,
        outcome=None,
        fingerprint=fingerprint(wanted),
        error=None,
    )


def _answered(call: Call, job: Job) -> Call:
    if job.outcome == "conflict":
        return _ended(call, "fail", f"conflict at {', '.join(job.conflict_paths)}")
    outcome: Literal["created", "replayed"] = "created" if job.outcome == "created" else "replayed"
    return _end(call, op="ok", job_id=str(job.id), outcome=outcome)


def _ended(call: Call, op: Literal["fail", "info"], error: Exception | str) -> Call:
    return _end(call, op=op, error=error if isinstance(error, str) else _said(error))


def _end(call: Call, **more: Any) -> Call:
    same = {name: getattr(call, name) for name in ("process", "call", "action", "key", "fingerprint")}
    return Call(at=time.time(), **same, **({"job_id": None, "outcome": None, "error": None} | more))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]


def _request(wanted: Wanted) -> Request:
    now = datetime.now(UTC)
    return Request(
        action=wanted.action,
        params=wanted.params,
        idempotency_key=wanted.key,
        run_at=None if wanted.run_in is None else now + timedelta(seconds=wanted.run_in),
        deadline=None if wanted.deadline_in is None else now + timedelta(seconds=wanted.deadline_in),
    )


def main() -> None:
    """Ask for jobs until told to stop."""
    name, folder, seed, per_second = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    stopping = threading.Event()
    obey(stopping.set)
    over_http = "SUREFOOT_API_URL" in os.environ
    producer = HttpProducer(retry_seconds=PATIENCE_SECONDS) if over_http else Producer(Settings.from_env(tenant=RUN))
    history, cancels = Appender(folder, Call), Appender(folder, Cancel)
    threads = [
        threading.Thread(
            target=Asking(
                name, producer, Load(f"{name}-{n}", seed), history, cancels, THREADS / per_second, stopping
            ).run
        )
        for n in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    producer.close()


if __name__ == "__main__":
    main()

"""Accepting over HTTP beside accepting by the producer itself: how many a second, and how long at a steady pace."""

from __future__ import annotations

import json
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import accumulate
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from producer import Producer, Settings
from tests.api_process import api_of, bearer
from tests.benchmarks import cpu
from tests.benchmarks.figures import Figures, Plan, in_turn, percentile
from tests.benchmarks.markdown import ratio, section, spread, table
from tests.benchmarks.stage import Ground, Stage

RATE, P50, P99 = "accepted, jobs/s", "accept, p50, ms", "accept, p99, ms"
COST = "accept at a pace"
DIRECT, HTTP = "`Producer`", "`surefoot api`"
HERTZ = 200.0
# As many as are needed for the API to be busy all of the time.
CALLERS = 8
# At a pace each request leaves when it is due, also while some that left before it have no answer yet.
PACED_CALLERS = 64
WARM = 100
SEED = 7
SPENDERS = (cpu.MAIN, cpu.PRODUCER, cpu.POSTGRES, cpu.VALKEY)
CALLED = {cpu.MAIN: "API", cpu.PRODUCER: "caller"}

Accept = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to have a job accepted.

    Attributes:
        accept: Accepts one, and returns when it is durable.
        pids: Of the processes that do it beside this one.
    """

    accept: Accept
    pids: Sequence[int] = ()


def play(ground: Ground, plan: Plan, figures: Figures, number: int) -> Iterator[str]:
    """Measure one round; yields a line for each way."""
    for who in in_turn((DIRECT, HTTP), number):
        with ground.stage() as stage, (_directly if who == DIRECT else _over_http)(stage) as way:
            _saturated(way.accept, WARM)
            rate = _saturated(way.accept, plan.jobs)
            meter = cpu.Meter(way.pids, stage.server_pids)
            taken = _at_a_pace(way.accept, plan.jobs)
            spent = meter.us_per_job(plan.jobs)
        p50, p99 = statistics.median(taken), percentile(taken, 99)
        for measure, figure in ((RATE, rate), (P50, p50), (P99, p99)):
            figures.add(measure, who, figure)
        cpu.keep(figures, COST, who, spent)
        yield f"{who}: {rate:,.0f} jobs/s; at {HERTZ:g}/s p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def _saturated(accept: Accept, jobs: int) -> float:
    """Return jobs accepted a second by so many callers, each of whom asks as soon as he has his answer."""
    with ThreadPoolExecutor(CALLERS) as callers:
        began = time.perf_counter()
        list(callers.map(accept, range(jobs)))
        return jobs / (time.perf_counter() - began)


def _at_a_pace(accept: Accept, jobs: int) -> list[float]:
    """Return the milliseconds that each accept took from when it was due, whatever became of those before it."""
    due_after = due_times(jobs)
    begins = time.perf_counter() + 0.1

    def when_due(number: int) -> float:
        due = begins + due_after[number]
        time.sleep(max(0.0, due - time.perf_counter()))
        accept(number)
        return (time.perf_counter() - due) * 1000

    with ThreadPoolExecutor(PACED_CALLERS) as callers:
        return list(callers.map(when_due, range(jobs)))


def due_times(jobs: int) -> list[float]:
    """Return after how many seconds each request is due: drawn beforehand, as of many who know nothing of each other.

    The same for every way and round.
    """
    chance = random.Random(SEED)  # noqa: S311  spreads load, guards nothing
    return list(accumulate(chance.expovariate(HERTZ) for _ in range(jobs)))


def _asked(number: int) -> dict[str, Any]:
    return {"action": "bench.pure", "params": {"number": number}}


@contextmanager
def _directly(stage: Stage) -> Iterator[Way]:
    """Accept by a producer in this process."""
    with closing(Producer(_settings(stage))) as producer:
        yield Way(lambda number: _check(producer.enqueue(**_asked(number), idempotency_key=str(uuid4())).outcome))


@contextmanager
def _over_http(stage: Stage) -> Iterator[Way]:
    """Accept by an API process of its own, with a key, over connections that are kept."""
    settings = _settings(stage)
    with closing(Producer(settings)) as producer:
        _, key = producer.keys.create("bench", ["enqueue"], rate_per_second=100_000, who="bench")
    with api_of(settings, stage.folder) as api:
        yield Way(_Poster(api.url, bearer(key)).accept, [api.process.pid])


@dataclass(slots=True)
class _Poster:
    """Posts jobs, over a connection for each thread.

    By Python's plainest client: a heavier one would take from the API the processor time that it is measured by.
    """

    url: str
    headers: dict[str, str]
    _own: threading.local = field(default_factory=threading.local)

    def accept(self, number: int) -> None:
        if not hasattr(self._own, "connection"):
            address = urlsplit(self.url)
            self._own.connection = HTTPConnection(address.hostname or "", address.port, timeout=30)
        connection: HTTPConnection = self._own.connection
        headers = self.headers | {"Content-Type": "application/json", "Idempotency-Key": str(uuid4())}
        connection.request("POST", "/v1/jobs", json.dumps(_asked(number)).encode(), headers)
        _check(json.loads(connection.getresponse().read()).get("outcome"))


def _settings(stage: Stage) -> Settings:
    return Settings(database_url=stage.database_url, redis_url=stage.redis_url)


def _check(outcome: str | None) -> None:
    if outcome != "created":
        raise RuntimeError(f"a job was not created, but {outcome}")


def show(plan: Plan, figures: Figures) -> str:
    """Return the section of the page."""
    rows = [
        (
            who,
            spread(figures.of(RATE, who)),
            ratio(figures, (RATE, who), (RATE, DIRECT)),
            spread(figures.of(P50, who), 1),
            spread(figures.of(P99, who), 1),
            ratio(figures, (P99, who), (P99, DIRECT)),
        )
        for who in (DIRECT, HTTP)
    ]
    how = f"""{CALLERS} callers ask for {plan.jobs:,} jobs as fast as they are answered; then {plan.jobs:,} are asked
        for at {HERTZ:g} a second, at times that were drawn beforehand (exponential gaps, the same for both), and what
        is late counts from when it was due. No worker runs, and the callers are threads of one process. The API is one
        process, wants a key, reads each job back for its answer, and logs a line for each."""
    heads = ("", "jobs/s", "over `Producer`", "p50, ms", "p99, ms", "p99 over `Producer`")
    spent = f"""What one of these jobs costs at {HERTZ:g} a second, in microseconds of processor time, medians. Of
        `Producer` the caller's is all that it does itself; of the API it is the asking alone."""
    costs = cpu.costs(figures, COST, (DIRECT, HTTP), SPENDERS, CALLED)
    return section("Over HTTP", how, table(heads, rows), spent, costs)

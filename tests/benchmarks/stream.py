"""How fast jobs come and go while four threads enqueue them one by one and the workers run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from tests.benchmarks import cpu
from tests.benchmarks.clients import Client
from tests.benchmarks.crew import THREADS_1, THREADS_2
from tests.benchmarks.ends import until_ended
from tests.benchmarks.figures import Figures, Plan, in_turn
from tests.benchmarks.markdown import ratio, section, spread, table
from tests.benchmarks.peers import CELERY_THREADS, SUREFOOT, Peer
from tests.benchmarks.stage import Ground
from tests.benchmarks.workers import working

THREADS = 4
RATE, ENQUEUED, TRIED = "stream, jobs/s", "stream, enqueued/s", "stream, tried once, jobs/s"
SHAPES = (THREADS_1, THREADS_2)


@dataclass(frozen=True, slots=True)
class Streamed:
    """How a stream of jobs came and went.

    Attributes:
        rate: Jobs per second, from the first that was enqueued to the end of the last.
        enqueued: Jobs per second that the threads enqueued.
        cpu_us: Processor time per job in microseconds, by who spent it.
    """

    rate: float
    enqueued: float
    cpu_us: Mapping[str, float]


def play(ground: Ground, plan: Plan, figures: Figures, number: int) -> Iterator[str]:
    """Measure one round; before the first, find out which of Celery's crews is the better. Yields a line for each."""
    if not figures.who_in(TRIED):
        for crew in SHAPES:
            tried = _stream(ground, replace(CELERY_THREADS, crew=crew), plan.streamed)
            figures.add(TRIED, str(crew), tried.rate)
            yield f"{CELERY_THREADS.name}, {crew}: {tried.rate:,.0f} jobs/s"
    crew = max(SHAPES, key=lambda shape: figures.of(TRIED, str(shape)))
    for peer in in_turn((replace(CELERY_THREADS, crew=crew), SUREFOOT), number):
        streamed = _stream(ground, peer, plan.streamed)
        figures.add(RATE, peer.name, streamed.rate)
        figures.add(ENQUEUED, peer.name, streamed.enqueued)
        cpu.keep(figures, RATE, peer.name, streamed.cpu_us)
        yield f"{peer.name}: {streamed.enqueued:,.0f} jobs/s enqueued, {streamed.rate:,.0f} jobs/s done"


def _stream(ground: Ground, peer: Peer, jobs: int) -> Streamed:
    with (
        ThreadPoolExecutor(THREADS) as threads,
        ground.stage() as stage,
        peer.on(stage) as client,
        working(client, peer.crew) as workers,
    ):
        enqueue = partial(_enqueue, threads, client)
        workers.warm(client, enqueue)
        recorded = client.recorded(workers.logs)
        meter, began = cpu.Meter(workers.pids, stage.server_pids), time.perf_counter()
        enqueue(0, jobs)
        enqueued = time.perf_counter()
        ended = until_ended(client)
        spent = meter.us_per_job(jobs)
        workers.confirm(client, recorded + jobs)
    return Streamed(jobs / (ended - began), jobs / (enqueued - began), spent)


def _enqueue(threads: ThreadPoolExecutor, client: Client, first: int, count: int) -> None:
    """Enqueue one by one from all threads; return when everything is with the broker."""
    shares = [range(first + n, first + count, THREADS) for n in range(THREADS)]
    for _ in threads.map(partial(_enqueue_each, client), shares):
        pass
    client.flush()


def _enqueue_each(client: Client, numbers: Iterable[int]) -> None:
    for number in numbers:
        client.enqueue(number)


def show(plan: Plan, figures: Figures) -> str:
    """Return the section of the page."""
    celery = (RATE, CELERY_THREADS.name)
    names = (CELERY_THREADS.name, SUREFOOT.name)
    rows = [
        (
            who,
            spread(figures.of(ENQUEUED, who)),
            spread(figures.of(RATE, who)),
            ratio(figures, (RATE, who), celery),
        )
        for who in names
    ]
    tried = " and ".join(f"{figures.median(TRIED, who):,.0f} by {who}" for who in figures.who_in(TRIED))
    how = f"""{THREADS} threads of one process enqueue {plan.streamed:,} jobs one by one while the workers run, which
        are warm. The clock runs from the first call to the end of the last job. Celery's crew is the better of two,
        each tried once before the rounds: {tried} jobs/s. Surefoot's is {SUREFOOT.crew}."""
    heads = ("", "enqueued/s", "done, jobs/s", "over Celery")
    costs = cpu.costs(figures, RATE, names, cpu.SPENDERS)
    spent = "What one of these jobs costs, in microseconds of processor time, medians; the producer's is in it."
    return section("Jobs coming and going", how, table(heads, rows), spent, costs)

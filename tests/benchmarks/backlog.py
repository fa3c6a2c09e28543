"""How fast jobs are worked off that are all there from the start, and who spends processor time on them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.benchmarks import cpu
from tests.benchmarks.clients import Client
from tests.benchmarks.ends import until_ended
from tests.benchmarks.figures import Figures, Plan, in_turn
from tests.benchmarks.markdown import ratio, section, spread, table
from tests.benchmarks.peers import (
    CELERY,
    CELERY_DB,
    CELERY_REDIS,
    CELERY_THREADS,
    LONE,
    LONE_PREFORK,
    LONE_UNSAFE,
    SUREFOOT,
    UNSAFE,
)
from tests.benchmarks.stage import Ground
from tests.benchmarks.workers import Workers, working

RATE = "backlog, jobs/s"
# Those that ring for many jobs at once come last, and have more to do.
MANY = (SUREFOOT, UNSAFE)
PEERS = (CELERY, CELERY_THREADS, CELERY_REDIS, CELERY_DB, LONE, LONE_UNSAFE, LONE_PREFORK, *MANY)


@dataclass(frozen=True, slots=True)
class Worked:
    """How a backlog was worked off.

    Attributes:
        rate: Jobs per second.
        enqueued: Jobs per second while it gathered, for which the workers stood still.
        cpu_us: Processor time per job in microseconds, by who spent it.
        enqueued_us: The same, while it gathered.
    """

    rate: float
    enqueued: float
    cpu_us: Mapping[str, float]
    enqueued_us: Mapping[str, float]


def work_off(client: Client, workers: Workers, jobs: int) -> Worked:
    """Have jobs gather while the workers, which are warm, stand still; then measure how they are worked off.

    Raises:
        Stalled: If nothing ends for a minute, or the successes on record are not as many as the jobs.
    """
    recorded = client.recorded(workers.logs)
    with workers.standing_still():
        before, asked = cpu.Meter(workers.pids, client.stage.server_pids), time.perf_counter()
        client.enqueue_all(0, jobs)
        enqueued_us = before.us_per_job(jobs)
        meter, began = cpu.Meter(workers.pids, client.stage.server_pids), time.perf_counter()
    ended = until_ended(client)
    spent = meter.us_per_job(jobs)
    workers.confirm(client, recorded + jobs)
    return Worked(jobs / (ended - began), jobs / (began - asked), spent, enqueued_us)


def play(ground: Ground, plan: Plan, figures: Figures, number: int) -> Iterator[str]:
    """Measure one round; yields a line for each peer."""
    for peer in in_turn(PEERS, number):
        with ground.stage() as stage, peer.on(stage) as client, working(client, peer.crew) as workers:
            workers.warm(client)
            worked = work_off(client, workers, plan.batched if peer in MANY else plan.jobs)
        figures.add(RATE, peer.name, worked.rate)
        cpu.keep(figures, RATE, peer.name, worked.cpu_us)
        yield f"{peer.name}: {worked.rate:,.0f} jobs/s"


def show(plan: Plan, figures: Figures) -> str:
    """Return the section of the page."""
    rows = [
        (
            peer.name,
            str(peer.crew),
            spread(figures.of(RATE, peer.name)),
            *(ratio(figures, (RATE, peer.name), (RATE, other.name)) for other in (CELERY, CELERY_DB)),
        )
        for peer in PEERS
    ]
    how = f"""The workers, which are warm, are suspended; {plan.jobs:,} jobs are enqueued, {plan.batched:,} where one
        ring may name many; the workers go on. The clock runs from there to the end of the last job."""
    heads = ("", "workers", "jobs/s", "over Celery, no results", "over Celery, database results")
    spenders = (cpu.MAIN, cpu.CHILDREN, cpu.POSTGRES, cpu.VALKEY)
    costs = cpu.costs(figures, RATE, [peer.name for peer in PEERS], spenders)
    spent = """What one of these jobs costs, in microseconds of processor time, medians. Each core has 1,000,000 to
        spend in a second; whoever spends less can do more."""
    return section("A backlog worked off", how, table(heads, rows), spent, costs)

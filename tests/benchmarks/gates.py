"""What gates cost a job while none is configured, and what sealing costs it afterwards."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from sqlalchemy import text

from producer.ledger.engine import open_engine
from producer.ledger.seals import Seal
from tests.benchmarks import cpu, paired
from tests.benchmarks.bypass import GATES, SEALING
from tests.benchmarks.figures import Figures, Plan, in_turn
from tests.benchmarks.markdown import ratio, section, spread, table
from tests.benchmarks.paired import Way
from tests.benchmarks.stage import Ground, Stage
from tests.benchmarks.workers import Workers
from worker import sealer
from worker.sealer import Sealer

MEASURE = "gates"
RATE, PER_CORE = paired.rate(MEASURE), paired.per_core(MEASURE)
SEALED = f"{PER_CORE}, sealing included"
SEAL_JOB, SEAL_EVENT = "sealing, µs a job", "sealing, µs an event"
# The sealer is measured by itself: when it looks while a backlog is worked off is chance, and then it does much.
WITH = Way("none configured", [SEALING])
WITHOUT = Way("without policies, budgets, checks and digests", [SEALING, GATES])
LONE_WITH = Way("none configured, a ring for each job", [SEALING], lone_rings=True)
LONE_WITHOUT = Way("without those, a ring for each job", [SEALING, GATES], lone_rings=True)
# Each with that which it is compared to.
COMPARED = {WITH.name: WITHOUT, LONE_WITH.name: LONE_WITHOUT}
WAYS = (WITH, WITHOUT, LONE_WITH, LONE_WITHOUT)
# What is looked for is less than what one pair may be off by.
PAIRS = 2
NEWEST = text("SELECT max(at) FROM events")


def play(ground: Ground, plan: Plan, figures: Figures, number: int) -> Iterator[str]:
    """Measure one round, which has several pairs; yields a line for each backlog."""
    for turn in range(PAIRS):
        for way in in_turn(WAYS, PAIRS * number + turn):
            jobs = plan.streamed if way.lone_rings else plan.batched
            if GATES in way.without:
                yield paired.run(ground, way, jobs=jobs, figures=figures, measure=MEASURE)
                continue
            yield paired.run(
                ground, way, jobs=jobs, figures=figures, measure=MEASURE, around=_sealed(way, jobs, figures)
            )
            us = 1e6 / figures.of(PER_CORE, way.name)[-1] + figures.of(SEAL_JOB, way.name)[-1]
            figures.add(SEALED, way.name, 1e6 / us)


def _sealed(way: Way, jobs: int, figures: Figures) -> paired.Around:
    """Return what has the events of a backlog sealed once it is worked off, and keeps what that took."""

    @contextmanager
    def around(stage: Stage, _workers: Workers) -> Iterator[None]:
        seals: list[Seal] = []
        engine = open_engine(stage.database_url, connections=1, name="bench")
        unhurried = patch.object(sealer, "EVENTS_PER_SECOND", math.inf)
        try:
            with unhurried, engine.connect() as connection:
                ours = Sealer(None, on_sealed=seals.append)
                ours.seal(connection)  # from here on
                yield
                newest = connection.execute(NEWEST).scalar_one()
                meter = cpu.Meter([], stage.server_pids)
                while not seals or seals[-1].horizon <= newest:
                    ours.seal(connection)
                us = sum(meter.us_per_job(jobs).values())
        finally:
            engine.dispose()
        figures.add(SEAL_JOB, way.name, us)
        figures.add(SEAL_EVENT, way.name, us * jobs / sum(seal.events for seal in seals))

    return around


def show(plan: Plan, figures: Figures) -> str:
    """Return the section of the page."""
    rows = [
        (
            way.name,
            spread(figures.of(RATE, way.name)),
            spread(figures.of(PER_CORE, way.name)),
            _over(figures, PER_CORE, way),
            _over(figures, SEALED, way),
        )
        for way in WAYS
    ]
    how = f"""{plan.batched:,} jobs by batch rings, {plan.streamed:,} with a ring each, worked off as above by
        {paired.CREW}, {PAIRS} times a round each way. Without policies, budgets, checks and digests is without what
        these gates and the record add to a job's way: no policy and no budget is looked up, no check, and nobody who
        was asked too long ago; no digest of the result is left, and the ledger has no index of events by their time and
        none of jobs that wait for a budget. Turns, holds, limits and breakers are there in both. Workers are started
        for it with functions in the place of these parts that do nothing. Processor time is that of workers, servers
        and producer, from the enqueueing to the outcome."""
    heads = ("", "jobs/s", "jobs for a second of processor time", "over those without", "the same, sealing included")
    spent = "What one of these jobs costs, in microseconds of processor time, medians; sealing is not in it."
    costs = cpu.costs(figures, MEASURE, [way.name for way in WAYS], paired.SPENDERS)
    return section("Gates that are not configured", how, table(heads, rows), spent, costs, _of_sealing(figures))


def _over(figures: Figures, measure: str, way: Way) -> str:
    over = COMPARED.get(way.name)
    if over is None:
        return "1" if measure == PER_CORE else ""
    return ratio(figures, (measure, way.name), (PER_CORE, over.name))


def _of_sealing(figures: Figures) -> str:
    event = statistics.median(figures.of(SEAL_EVENT, WITH.name))
    job = statistics.median(figures.of(SEAL_JOB, WITH.name))
    return f"""Sealing goes on in the background, and is none of a job's way. It was put off while the jobs were worked
        off, and done right after, so that all of it is known: {event:.1f} µs of processor time an event, {job:.0f} µs a
        job, nearly all of it Postgres's. Workers seal at most {sealer.EVENTS_PER_SECOND:,.0f} events a second, which is
        {event * sealer.EVENTS_PER_SECOND / 1e4:.1f} % of one core: where more than that come, for as long as they do
        the rest waits. The last column counts all of it all the same."""

"""What gates cost a job while none is configured, what the record costs it, and what sealing costs afterwards."""

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
from tests.benchmarks.bypass import GATES, RECORD
from tests.benchmarks.ends import Stalled
from tests.benchmarks.figures import Figures, Plan, in_turn
from tests.benchmarks.markdown import section, table
from tests.benchmarks.paired import Compared
from tests.benchmarks.stage import Ground, Stage
from tests.benchmarks.workers import Workers
from worker import sealer
from worker.sealer import Sealer

MEASURE = "gates"
RATE, PER_CORE = paired.rate(MEASURE), paired.per_core(MEASURE)
SEAL_JOB, SEAL_EVENT = "sealing, µs a job", "sealing, µs an event"
GATED = Compared(GATES, "no gate configured", "without policies, budgets, approvals and checks")
LONE = Compared(GATES, "no gate configured, a ring for each job", "without those, a ring for each job", lone_rings=True)
ON_RECORD = Compared(RECORD, "on record", "without the result's digest and the index of events by time")
ALL = (GATED, LONE, ON_RECORD)
NEWEST = text("SELECT max(at) FROM events")
# What the record has in the ledger, and what it leaves there for each job that succeeded.
INDEX = "events_by_time"
HOW_IT_IS_MADE = f"SELECT indexdef FROM pg_indexes WHERE indexname = '{INDEX}'"
DIGESTS = "SELECT count(*) FROM events WHERE data ->> 'result_sha256' IS NOT NULL"


def play(ground: Ground, plan: Plan, figures: Figures, number: int) -> Iterator[str]:
    """Measure one round; yields a line for each part."""
    for compared in in_turn(ALL, number):
        jobs = turn_jobs(plan, compared)
        if compared is ON_RECORD:
            yield paired.run(
                ground,
                compared,
                jobs=jobs,
                figures=figures,
                measure=MEASURE,
                around=sealed_afterwards(jobs * paired.TURNS, figures),
                around_turn=on_record_or_not(jobs),
            )
        else:
            yield paired.run(ground, compared, jobs=jobs, figures=figures, measure=MEASURE)


def turn_jobs(plan: Plan, compared: Compared) -> int:
    """Return how many jobs are worked off in a turn."""
    return (plan.jobs if compared.lone_rings else plan.batched) // 2


def on_record_or_not(jobs: int) -> paired.AroundTurn:
    """Return what takes the index away for the turns without, and makes sure of the digests in both.

    It is made anew for each turn with it: what every process has to plan again after that, both kinds have to.
    """

    @contextmanager
    def around_turn(stage: Stage, _workers: Workers, out: bool) -> Iterator[None]:  # noqa: FBT001  as it is called
        how, before = str(stage.query(HOW_IT_IS_MADE)[0][0]), _digests(stage)
        stage.query(f"DROP INDEX {INDEX}")
        if not out:
            stage.query(how)
        yield
        if out:
            stage.query(how)
        left = _digests(stage) - before
        if left != (0 if out else jobs):
            raise Stalled(f"{left} digests of {jobs} jobs were left {'without' if out else 'with'} the record")

    return around_turn


def _digests(stage: Stage) -> int:
    return int(stage.query(DIGESTS)[0][0])


def sealed_afterwards(jobs: int, figures: Figures) -> paired.Around:
    """Return what has the events of so many jobs sealed once they are worked off, and keeps what that took."""

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
        figures.add(SEAL_JOB, ON_RECORD.name, us)
        figures.add(SEAL_EVENT, ON_RECORD.name, us * jobs / sum(seal.events for seal in seals))

    return around


def show(plan: Plan, figures: Figures) -> str:
    """Return the section of the page."""
    how = f"""{paired.TURNS} backlogs a round for each part, {turn_jobs(plan, GATED):,} jobs by batch rings or
        {turn_jobs(plan, LONE):,} with a ring each, worked off as above by {paired.CREW}. Half of them are worked off
        without the part, by the same processes, in which it is switched: with, without, without, with. Each four give
        one figure; the medians of all, and their ranges, stand here. Without gates, no policy and no budget is looked
        up, no check, and nobody who was asked too long ago; turns, holds, limits and breakers are there in both.
        Without the record, no digest of a result is left, and the ledger has no index of events by their time.
        Processor time is that of workers, servers and producer, from the enqueueing to the outcome."""
    heads = ("", "jobs/s", "jobs for a second of processor time", "over those without")
    found = [row for compared in ALL for row in paired.rows(figures, MEASURE, compared)]
    spent = "What one of these jobs costs, in microseconds of processor time, medians; sealing is not in it."
    names = [name for compared in ALL for name in (compared.name, compared.without)]
    costs = cpu.costs(figures, MEASURE, names, paired.SPENDERS)
    return section(
        "Gates that are not configured, and the record", how, table(heads, found), spent, costs, _of_sealing(figures)
    )


def _of_sealing(figures: Figures) -> str:
    event = statistics.median(figures.of(SEAL_EVENT, ON_RECORD.name))
    job = statistics.median(figures.of(SEAL_JOB, ON_RECORD.name))
    return f"""Sealing goes on in the background, and is none of a job's way. It was put off while the jobs were worked
        off, and done right after, so that all of it is known: {event:.1f} µs of processor time an event, {job:.0f} µs a
        job, nearly all of it Postgres's. Workers seal at most {sealer.EVENTS_PER_SECOND:,.0f} events a second, which is
        {event * sealer.EVENTS_PER_SECOND / 1e4:.1f} % of one core: where more than that come, for as long as they do
        the rest waits."""

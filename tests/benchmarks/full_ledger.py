"""What it costs that finished jobs lie in the ledger: the same backlog worked off in a full one and an empty one.

A round has two turns of each, one kind around the other: what drifts evenly hits both alike. A backlog takes three
seconds, and by one of each, rates of the same ledger differed by a third.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

from tests.benchmarks.backlog import Worked, work_off
from tests.benchmarks.figures import Figures, Plan, in_turn
from tests.benchmarks.filled import filled, size_gib
from tests.benchmarks.markdown import ratio, section, spread, table
from tests.benchmarks.peers import SUREFOOT
from tests.benchmarks.stage import Ground, Stage
from tests.benchmarks.workers import working

RATE, ENQUEUED = "by ledger, jobs/s", "by ledger, enqueued/s"
SIZE, MINUTES = "full ledger, GiB", "full ledger, minutes to fill"
EMPTY, FULL = "an empty ledger", "a full ledger"


def play(ground: Ground, plan: Plan, figures: Figures) -> Iterator[str]:
    """Fill a ledger, which takes minutes, and measure all rounds; yields a line for each ledger."""
    began = time.monotonic()
    with filled(ground, plan.ledger) as full:
        figures.add(MINUTES, FULL, (time.monotonic() - began) / 60)
        figures.add(SIZE, FULL, size_gib(full))
        yield f"{plan.ledger:,} finished jobs, {figures.of(SIZE, FULL)[0]:.1f} GiB"
        for number in range(plan.rounds):
            found = defaultdict[str, list[Worked]](list)
            for name in _turns(number):
                with nullcontext(ground.on(full.database_url)) if name == FULL else ground.stage() as stage:
                    found[name].append(worked := _work(stage, plan))
                yield f"{name}: {worked.enqueued:,.0f} jobs/s enqueued, {worked.rate:,.0f} jobs/s done"
            for name, both in found.items():
                figures.add(RATE, name, statistics.harmonic_mean([worked.rate for worked in both]))
                figures.add(ENQUEUED, name, statistics.harmonic_mean([worked.enqueued for worked in both]))


def _turns(number: int) -> Sequence[str]:
    one, other = in_turn((EMPTY, FULL), number)
    return (one, other, other, one)


def _work(stage: Stage, plan: Plan) -> Worked:
    with SUREFOOT.on(stage) as client, working(client, SUREFOOT.crew) as workers:
        workers.warm(client)
        return work_off(client, workers, plan.batched)


def show(plan: Plan, figures: Figures) -> str:
    """Return the section of the page."""
    rows = [
        (
            name,
            *(
                text
                for measure in (ENQUEUED, RATE)
                for text in (
                    spread(figures.of(measure, name)),
                    ratio(figures, (measure, name), (measure, EMPTY)),
                )
            ),
        )
        for name in (EMPTY, FULL)
    ]
    how = f"""{plan.batched:,} jobs by batch rings, as above, in an empty ledger and in one in which {plan.ledger:,}
        finished jobs lie with their decisions and events ({figures.median(SIZE, FULL):.1f} GiB, vacuumed and
        analysed; filled in {figures.median(MINUTES, FULL):.1f} minutes). Keys are random in both. A round has two turns
        of each, one kind around the other, of which the mean counts."""
    heads = ("", "enqueued/s", "over empty", "done, jobs/s", "over empty")
    return section("In a full ledger", how, table(heads, rows))

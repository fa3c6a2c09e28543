"""docs/benchmarks.md: every figure of a run with what it was taken on, and the prose that people keep in between."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from tests.benchmarks import targets
from tests.benchmarks.crew import WARM_JOBS
from tests.benchmarks.ends import LOOK_SECONDS
from tests.benchmarks.figures import Figures, Plan
from tests.benchmarks.machine import Machine
from tests.benchmarks.markdown import paragraph, section, table
from tests.benchmarks.rounds import SECTIONS
from tests.benchmarks.steps import Step

BEGIN, END = "<!-- Written by people; a re-run keeps it. -->", "<!-- From here on generated again. -->"
EMPTY_PROSE = "Nobody has looked yet."
QUICK_ROUNDS = 3
BUSY_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All that a page is made of.

    Attributes:
        measured: The names of the measures that were taken.
        steps: Empty where they were not timed.
    """

    machine: Machine
    plan: Plan
    measured: Collection[str]
    figures: Figures
    steps: Sequence[Step]
    command: str
    day: date
    minutes: float


def page(run: Run, *, prose: str | None) -> str:
    """Return the whole page; `prose` goes in unchanged, None where there is none yet."""
    kept = f"## Where the time goes\n\n{BEGIN}\n{(prose or EMPTY_PROSE).strip()}\n{END}"
    shown = [show(run.plan, run.figures) for name, show in SECTIONS.items() if name in run.measured]
    steps = [_steps(run)] if run.steps else []
    return "\n\n".join((_head(run), _targets(run), _method(run), *shown, _losses(run), *steps, kept)) + "\n"


def prose_of(page: str) -> str | None:
    """Return what people wrote into an earlier page; None where there is nothing."""
    found = re.search(f"{re.escape(BEGIN)}\n(.*?)\n{re.escape(END)}", page, re.DOTALL)
    return found[1] if found and found[1] != EMPTY_PROSE else None


def _head(run: Run) -> str:
    machine = run.machine
    facts = {
        "command": f"`{run.command}`",
        "machine": f"{machine.cores} cores, {machine.cpu}, {machine.memory_gib:.0f} GiB, {machine.kernel}",
        "disk": f"{machine.filesystem}; a write that waits for it takes {machine.sync_us:,.0f} µs",
        "taken by others before the run": f"{machine.busy_cores:.1f} of {machine.cores} cores",
        "versions": ", ".join(f"{name} {number}" for name, number in machine.versions.items()),
    }
    made = paragraph(
        f"""Surefoot beside bare Celery: same machine, same servers, same run, made on {run.day.isoformat()} in
        {run.minutes:.0f} minutes. {" ".join(_doubts(run))}"""
    )
    return "\n\n".join(("# Benchmarks", made, table(("", ""), facts.items())))


def _doubts(run: Run) -> Iterator[str]:
    if run.plan.rounds < QUICK_ROUNDS:
        yield "**Too few rounds to rely on.**"
    if run.machine.busy_cores > BUSY_SHARE * run.machine.cores:
        yield "**The machine was busy with other work: provisional.**"


def _targets(run: Run) -> str:
    heads = ("measure", "target", "measured", "")
    how = f"Medians of {run.plan.rounds} rounds, with the smallest and the largest; ratios are taken within each round."
    return section("Targets", how, table(heads, targets.rows(run.figures)))


def _method(run: Run) -> str:
    return f"""## How it is measured

* One embedded Postgres (`fsync`, `synchronous_commit` and `full_page_writes` on) and one embedded Valkey serve all.
  Each measurement has a fresh database and an empty Redis, after a checkpoint. All processes share the cores above.
* Each worker is `celery … worker -P POOL -c N -l info --without-mingle --without-gossip` in a process of its own, with
  late acknowledgement, one message prefetched per place (Surefoot's asyncio pool counts jobs where Celery counts
  messages), task events on (as Flower needs them), and whatever it logs at `info`: Surefoot a line of JSON when a job
  ends, Celery a line when it arrives and one when it ends. The no-op takes a number and returns it.
* Nobody's start is timed: before the clock runs, every worker process has ended {WARM_JOBS} jobs that were enqueued in
  the way that is measured.
* The end of the last job: every {LOOK_SECONDS * 1000:g} ms the broker is asked for messages that wait or are not yet
  acknowledged. With none left Celery's tasks have ended, since it acknowledges late. Surefoot's workers keep what they
  have taken up to themselves, so from then on the ledger is asked whether a job is still on its way, over the partial
  indexes that hold only those. The successes on record are counted afterwards, and a run in which one is missing ends
  there.
* Rounds: {run.plan.rounds}, peers taking turns within each.
* Celery keeps its defaults beyond that: no result in one case, the stock `db+postgresql` or Redis backend in the
  others. Surefoot keeps its own: every job is accepted, intended and settled on disk, with its decision and events."""


def _losses(run: Run) -> str:
    lost = [f"* {claim}: {times:.1f} times slower" for claim, times in targets.lost(run.figures)]
    return section("Where Surefoot is slower", "\n".join(lost) or "Nowhere among what is measured here.")


def _steps(run: Run) -> str:
    rows = [(s.name, f"{s.took:,.0f}", _us(s.planning), _us(s.executing)) for s in run.steps]
    how = """One after another in one process, while no worker runs: medians, in microseconds. What planning and
        executing leave of a step is the commit, the way there and back, SQLAlchemy and the driver."""
    heads = ("step", "takes", "planning in Postgres", "executing in Postgres")
    return section("One job's steps", how, table(heads, rows))


def _us(time: float | None) -> str:
    return "" if time is None else f"{time:,.0f}"

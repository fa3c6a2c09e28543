"""docs/benchmarks.md: every figure of a run with what it was taken on, and the prose that people keep in between."""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from operator import attrgetter

from tests.benchmarks.cpu import CHILDREN, PARENT
from tests.benchmarks.machine import Machine
from tests.benchmarks.measures import LATENCY_HERTZ, WARM_JOBS
from tests.benchmarks.peers import BATCH, CELERY, CELERY_DB, CELERY_REDIS, PEERS, POLL_SECONDS, PURE, UNSAFE, Peer
from tests.benchmarks.rounds import BATCHES, ENQUEUE, P50, P99, WORK, Figures, Plan
from tests.benchmarks.steps import Step

BEGIN, END = "<!-- Written by people; a re-run keeps it. -->", "<!-- From here on generated again. -->"
EMPTY_PROSE = "Nobody has looked yet."
QUICK_ROUNDS = 3
BUSY_SHARE = 0.1
WIDTH = 120
PAIR = 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """One measure of Surefoot's over a peer's.

    Attributes:
        claim: What is compared, as the lists of targets and of losses say it.
        more_is_better: False for latencies.
        target: The bound that the issues set on the ratio; None where they set none.
    """

    claim: str
    mine: tuple[str, Peer]
    other: tuple[str, Peer]
    more_is_better: bool = True
    target: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All that a page is made of."""

    machine: Machine
    plan: Plan
    figures: Figures
    steps: Sequence[Step]
    command: str
    day: date
    minutes: float


COMPARISONS = (
    Comparison("enqueue one by one, over Celery's publishing", (ENQUEUE, PURE), (ENQUEUE, CELERY)),
    Comparison("`enqueue_many`, over Celery's publishing", (BATCHES, PURE), (ENQUEUE, CELERY)),
    Comparison("jobs/s, `pure`, over Celery without results", (WORK, PURE), (WORK, CELERY)),
    Comparison("jobs/s, `unsafe`, over Celery without results", (WORK, UNSAFE), (WORK, CELERY)),
    Comparison("jobs/s, `pure`, over Celery with database results", (WORK, PURE), (WORK, CELERY_DB), target=1.0),
    Comparison("jobs/s, `unsafe`, over Celery with database results", (WORK, UNSAFE), (WORK, CELERY_DB), target=1.0),
    *(
        Comparison(
            f"latency {name}, `{effect}`, over Celery with {other}",
            (measure, me),
            (measure, peer),
            more_is_better=False,
        )
        for measure, name in ((P50, "p50"), (P99, "p99"))
        for me, effect in ((PURE, "pure"), (UNSAFE, "unsafe"))
        for peer, other in ((CELERY_DB, "database results"), (CELERY_REDIS, "Redis results"))
    ),
)
# Milliseconds, for the median of the rounds' p50.
LATENCY_TARGET = 25.0


def page(run: Run, *, prose: str | None) -> str:
    """Return the whole page; `prose` goes in unchanged, None where there is none yet."""
    generated = (_head, _method, _enqueueing, _working, _spending, _waiting, _targets, _losses, _steps)
    kept = f"## Where the time goes\n\n{BEGIN}\n{(prose or EMPTY_PROSE).strip()}\n{END}"
    return "\n\n".join((*(part(run) for part in generated), kept)) + "\n"


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
    made = _paragraph(
        f"""Surefoot beside bare Celery: same machine, same servers, same run, made on {run.day.isoformat()} in
        {run.minutes:.0f} minutes. {" ".join(_doubts(run))}"""
    )
    return "\n\n".join(("# Benchmarks", made, _table(("", ""), facts.items())))


def _doubts(run: Run) -> Iterator[str]:
    if run.plan.rounds < QUICK_ROUNDS:
        yield "**Too few rounds to rely on.**"
    if run.machine.busy_cores > BUSY_SHARE * run.machine.cores:
        yield "**The machine was busy with other work: provisional.**"


def _method(run: Run) -> str:
    return f"""## How it is measured

* One embedded Postgres (`fsync`, `synchronous_commit` and `full_page_writes` on) and one embedded Valkey serve all.
  Each measurement has a fresh database and an empty Redis, after a checkpoint. All processes share the cores above.
* Each worker is `celery … -P prefork -c 2 -l info --without-mingle --without-gossip` in a process of its own, with
  late acknowledgement, one message prefetched per process, task events on (as Flower needs them), and whatever it
  logs at `info`: Surefoot a line of JSON when a job ends, Celery a line when it arrives and one when it ends. The no-op
  takes a number and returns it.
* Rounds: {run.plan.rounds}, peers taking turns within each. A figure is the median of the rounds, with the smallest
  and the largest; a ratio is taken within each round first.
* Celery keeps its defaults beyond that: no result in one case, the stock `db+postgresql` or Redis backend in the
  others. Surefoot keeps its own: every job is accepted, intended and settled on disk, with its decision and events."""


def _enqueueing(run: Run) -> str:
    celery = (ENQUEUE, CELERY)
    ways = (
        ("Celery, `send_task`", celery),
        ("Surefoot, `enqueue`", (ENQUEUE, PURE)),
        (f"Surefoot, `enqueue_many`, {BATCH:,} a batch", (BATCHES, PURE)),
    )
    rows = [(name, _spread(run.figures.of(*way)), _over(run, way, celery)) for name, way in ways]
    how = f"""One thread, {run.plan.enqueues:,} jobs one by one, {run.plan.batches * BATCH:,} in batches; no worker
        runs. Celery's is in Redis when the call returns; Surefoot's is on Postgres's disk, and rung."""
    return _section("Enqueueing", how, _table(("", "jobs/s", "over `send_task`"), rows))


def _working(run: Run) -> str:
    rows = [
        (
            peer.name,
            _spread(run.figures.of(WORK, peer)),
            _over(run, (WORK, peer), (WORK, CELERY)),
            _over(run, (WORK, peer), (WORK, CELERY_DB)),
        )
        for peer in sorted(PEERS, key=attrgetter("name"))
    ]
    how = f"""{run.plan.jobs + WARM_JOBS:,} jobs are enqueued, then the worker starts. The clock runs from the end of
        the first {WARM_JOBS} to the end of the last, seen in the broker, which forgets a message when it is
        acknowledged."""
    heads = ("", "jobs/s", "over Celery, no results", "over Celery, database results")
    return _section("Jobs through one worker with two processes", how, _table(heads, rows))


def _spending(run: Run) -> str:
    spenders = (PARENT, CHILDREN, "Postgres", "Valkey")
    rows = []
    for peer in sorted(PEERS, key=attrgetter("name")):
        spent = [statistics.median(run.figures.of(who, peer)) for who in spenders]
        rows.append((peer.name, *(f"{each:,.0f}" for each in spent), f"**{sum(spent):,.0f}**"))
    how = f"""Microseconds of processor time per job in the same runs, medians. {run.machine.cores} cores have
        {run.machine.cores},000,000 to spend each second; whoever spends less can do more."""
    return _section("What a job costs", how, _table(("", *spenders, "all"), rows))


def _waiting(run: Run) -> str:
    rows = [
        (
            peer.name,
            _spread(run.figures.of(P50, peer), 1),
            _spread(run.figures.of(P99, peer), 1),
            _over(run, (P50, peer), (P50, CELERY_DB)),
            _over(run, (P50, peer), (P50, CELERY_REDIS)),
        )
        for peer in sorted(PEERS, key=attrgetter("name"))
        if peer.has_results
    ]
    how = f"""{run.plan.waits} jobs a round at {LATENCY_HERTZ:g} a second, on the same worker, now idle in between.
        Surefoot's `Job.get` looks after 2 ms and then less and less often. Celery's `AsyncResult.get` looks every
        {POLL_SECONDS * 1000:g} ms in the database, where its stock backend connects anew for each look of a process
        that multiprocessing did not fork; Redis tells it without being asked."""
    heads = ("", "p50, ms", "p99, ms", "p50 over Celery, database results", "p50 over Celery, Redis results")
    return _section("From enqueue to the result in hand", how, _table(heads, rows))


def _targets(run: Run) -> str:
    rows = []
    for each in COMPARISONS:
        if each.target is not None:
            ratio = run.figures.ratio(each.mine, each.other)
            rows.append((each.claim, f"≥ {each.target:g}", f"{ratio:.2f}", _met(met=ratio >= each.target)))
    for peer in (PURE, UNSAFE):
        p50 = statistics.median(run.figures.of(P50, peer))
        bound = f"< {LATENCY_TARGET:g} ms"
        rows.append((f"{peer.name}: p50 to the result", bound, f"{p50:.1f} ms", _met(met=p50 < LATENCY_TARGET)))
    return _section("Targets", None, _table(("measure", "target", "measured", ""), rows))


def _losses(run: Run) -> str:
    lost = [f"* {claim}: {times:.1f} times slower" for claim, times in _lost(run)]
    return _section("Where Surefoot is slower", None, "\n".join(lost or ["Nowhere among what is measured here."]))


def _lost(run: Run) -> Iterator[tuple[str, float]]:
    for each in COMPARISONS:
        ratio = run.figures.ratio(each.mine, each.other)
        times = 1 / ratio if each.more_is_better else ratio
        if times > 1:
            yield each.claim, times


def _steps(run: Run) -> str:
    rows = [(s.name, f"{s.took:,.0f}", _us(s.planning), _us(s.executing)) for s in run.steps]
    how = """One after another in one process, while no worker runs: medians, in microseconds. What planning and
        executing leave of a step is the commit, the way there and back, SQLAlchemy and the driver."""
    heads = ("step", "takes", "planning in Postgres", "executing in Postgres")
    return _section("One job's steps", how, _table(heads, rows))


def _section(title: str, how: str | None, body: str) -> str:
    return "\n\n".join((f"## {title}", *([] if how is None else [_paragraph(how)]), body))


def _paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rules = ["---", *["---:"] * (len(heads) - 1)] if len(heads) > PAIR else ["---"] * PAIR
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows))


def _spread(figures: Sequence[float], digits: int = 0) -> str:
    low, middle, high = min(figures), statistics.median(figures), max(figures)
    return f"**{middle:,.{digits}f}** ({low:,.{digits}f} to {high:,.{digits}f})"


def _over(run: Run, mine: tuple[str, Peer], other: tuple[str, Peer]) -> str:
    if mine == other:
        return "1"
    ratios = run.figures.ratios(mine, other)
    return f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"


def _us(time: float | None) -> str:
    return "" if time is None else f"{time:,.0f}"


def _met(*, met: bool) -> str:
    return "met" if met else "**missed**"

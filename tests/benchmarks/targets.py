"""What the issues ask of the figures, and what has come of it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.benchmarks import (
    backlog,
    breaker,
    console,
    counting,
    enqueueing,
    full_ledger,
    gates,
    latency,
    over_http,
    stream,
    thousand,
)
from tests.benchmarks.figures import Figures, Key
from tests.benchmarks.markdown import spread
from tests.benchmarks.peers import (
    CELERY,
    CELERY_DB,
    CELERY_REDIS,
    CELERY_THREADS,
    LONE,
    LONE_UNSAFE,
    SUREFOOT,
    UNSAFE,
)

AT_LEAST, AT_MOST = "≥", "≤"
# So many times slower is told as a loss: less is rounded away.
TOLD = 1.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of Surefoot's, by itself or over a peer's.

    Attributes:
        measure: What is compared, as the issue says it.
        mine: Surefoot's.
        over: The peer's; None where the figure stands by itself.
        bound: What the issue asks of it; None where it asks nothing.
        sense: Whether more is better.
        digits: After the point.
        unit: Of a figure that stands by itself.
    """

    measure: str
    mine: Key
    over: Key | None = None
    bound: float | None = None
    sense: str = AT_LEAST
    digits: int = 2
    unit: str = ""

    def values(self, figures: Figures) -> Sequence[float]:
        """Return one value a round; empty where it was not measured."""
        return figures.of(*self.mine) if self.over is None else figures.ratios(self.mine, self.over)


TARGETS = (
    Comparison(
        "jobs/s, a ring for each job, over bare Celery (prefork 2, no results)",
        (backlog.RATE, LONE.name),
        (backlog.RATE, CELERY.name),
        1.0,
    ),
    Comparison(
        "the same over Celery with `db+postgresql` results",
        (backlog.RATE, LONE.name),
        (backlog.RATE, CELERY_DB.name),
        2.0,
    ),
    Comparison(
        "jobs/s, enqueued one by one by four threads meanwhile, over bare Celery on threads",
        (stream.RATE, SUREFOOT.name),
        (stream.RATE, CELERY_THREADS.name),
        2.0,
    ),
    Comparison(
        "jobs/s by batch rings over Celery with `db+postgresql` results",
        (backlog.RATE, SUREFOOT.name),
        (backlog.RATE, CELERY_DB.name),
        10.0,
    ),
    Comparison(
        "`enqueue_many`, accepted and rung, over Celery's publish rate",
        (enqueueing.IN_BATCHES, SUREFOOT.name),
        (enqueueing.ONE_BY_ONE, CELERY.name),
        8.0,
    ),
    Comparison(
        "1,000 actions of 1 s in one worker process: to the last result",
        (thousand.SECONDS, thousand.WAITING.name),
        bound=1.6,
        sense=AT_MOST,
        unit=" s",
    ),
    Comparison(
        "the same: that process's peak memory",
        (thousand.PEAK, thousand.WAITING.name),
        bound=130.0,
        sense=AT_MOST,
        digits=0,
        unit=" MiB",
    ),
    Comparison(
        "enqueue to result at 10 jobs/s, p50, over Celery with Redis results",
        (latency.P50, SUREFOOT.name),
        (latency.P50, CELERY_REDIS.name),
        2.0,
        AT_MOST,
    ),
    Comparison(
        "the same, p99",
        (latency.P99, SUREFOOT.name),
        (latency.P99, CELERY_REDIS.name),
        2.5,
        AT_MOST,
    ),
    Comparison(
        "jobs/s in a full ledger over those in an empty one",
        (full_ledger.RATE, full_ledger.FULL),
        (full_ledger.RATE, full_ledger.EMPTY),
        0.9,
    ),
    Comparison(
        "jobs/s, `unsafe`, a ring for each job, over Celery with `db+postgresql` results",
        (backlog.RATE, LONE_UNSAFE.name),
        (backlog.RATE, CELERY_DB.name),
        1.0,
    ),
    Comparison(
        "enqueue to result, `pure`, p50", (latency.P50, SUREFOOT.name), bound=25.0, sense=AT_MOST, digits=1, unit=" ms"
    ),
    Comparison(
        "enqueue to result, `unsafe`, p50", (latency.P50, UNSAFE.name), bound=25.0, sense=AT_MOST, digits=1, unit=" ms"
    ),
    Comparison(breaker.COST, (breaker.COST, breaker.OURS), bound=10.0, sense=AT_MOST, digits=1, unit=" µs"),
    Comparison(breaker.ASKED, (breaker.ASKED, breaker.OURS), bound=0.01, sense=AT_MOST, digits=5),
    Comparison(
        "20 processes race a dependency that is well again: calls that try",
        (breaker.PROBES, breaker.OURS),
        bound=1.0,
        sense=AT_MOST,
        digits=0,
    ),
    Comparison(breaker.VIEW, (breaker.VIEW, breaker.OURS), bound=0.5, sense=AT_MOST, digits=3, unit=" s"),
    Comparison(breaker.RECOVERY, (breaker.RECOVERY, breaker.OURS), bound=2.0, sense=AT_MOST),
    Comparison(breaker.WAIT, (breaker.WAIT, breaker.OURS), bound=0.3, sense=AT_MOST, digits=3, unit=" s"),
    Comparison(breaker.WAIT_KILLED, (breaker.WAIT_KILLED, breaker.OURS), bound=0.3, sense=AT_MOST, digits=3, unit=" s"),
    *(
        Comparison(
            f"the console: {page} among {console.DECISIONS} decisions, in the server",
            (console.MEDIAN, page),
            bound=100.0,
            sense=AT_MOST,
            digits=0,
            unit=" ms",
        )
        for page in console.ROUTES
    ),
    Comparison(
        "the console: a first look at a job, page and all that it names",
        (console.LOADED, console.JOB),
        bound=100.0,
        sense=AT_MOST,
        digits=0,
        unit=" kB",
    ),
    Comparison(
        "jobs for a second of processor time, no gate configured, over those without policies, budgets, approvals and"
        " checks",
        (gates.PER_CORE, gates.GATED.name),
        (gates.PER_CORE, gates.GATED.without),
        0.97,
        digits=3,
    ),
    Comparison(
        "the same, a ring for each job",
        (gates.PER_CORE, gates.LONE.name),
        (gates.PER_CORE, gates.LONE.without),
        0.97,
        digits=3,
    ),
)

# Nothing is asked of these; they are told where we lose.
OTHERS = (
    Comparison(
        "jobs for a second of processor time, their results' digests and the index of events by time on record, over"
        " those without",
        (gates.PER_CORE, gates.ON_RECORD.name),
        (gates.PER_CORE, gates.ON_RECORD.without),
        digits=3,
    ),
    Comparison(
        "the same, counted and scraped every second, over those not counted",
        (counting.PER_CORE, counting.COUNTED.name),
        (counting.PER_CORE, counting.COUNTED.without),
        digits=3,
    ),
    Comparison(
        "enqueue one by one, over Celery's publishing",
        (enqueueing.ONE_BY_ONE, SUREFOOT.name),
        (enqueueing.ONE_BY_ONE, CELERY.name),
    ),
    Comparison(
        "jobs/s, `unsafe`, a ring for each job, over bare Celery (prefork 2, no results)",
        (backlog.RATE, LONE_UNSAFE.name),
        (backlog.RATE, CELERY.name),
    ),
    Comparison(
        "jobs/s, a ring for each job, over bare Celery on threads",
        (backlog.RATE, LONE.name),
        (backlog.RATE, CELERY_THREADS.name),
    ),
    Comparison(
        "`unsafe`, enqueue to result, p50, over Celery with Redis results",
        (latency.P50, UNSAFE.name),
        (latency.P50, CELERY_REDIS.name),
        sense=AT_MOST,
    ),
    Comparison(
        "`unsafe`, enqueue to result, p99, over Celery with Redis results",
        (latency.P99, UNSAFE.name),
        (latency.P99, CELERY_REDIS.name),
        sense=AT_MOST,
    ),
    Comparison(
        "accepted by one API process, over `Producer` called directly",
        (over_http.RATE, over_http.HTTP),
        (over_http.RATE, over_http.DIRECT),
    ),
    Comparison(
        f"accept at {over_http.HERTZ:g} a second over HTTP, p99, over `Producer` called directly",
        (over_http.P99, over_http.HTTP),
        (over_http.P99, over_http.DIRECT),
        sense=AT_MOST,
    ),
)


def rows(figures: Figures) -> Iterator[tuple[str, str, str, str]]:
    """Yield measure, target, what was measured and whether that meets it."""
    for each in TARGETS:
        values = each.values(figures)
        target = f"{each.sense} {each.bound:g}{each.unit}"
        if values and each.bound is not None:
            middle = statistics.median(values)
            met = middle >= each.bound if each.sense == AT_LEAST else middle <= each.bound
            yield each.measure, target, spread(values, each.digits, each.unit), "met" if met else "**missed**"
        else:
            yield each.measure, target, "", "not measured"


def lost(figures: Figures) -> Iterator[tuple[str, float]]:
    """Yield where a peer is better, and how many times; not where that can hardly be told."""
    for each in (*TARGETS, *OTHERS):
        values = each.values(figures)
        if each.over is not None and values:
            middle = statistics.median(values)
            times = 1 / middle if each.sense == AT_LEAST else middle
            if times >= TOLD:
                yield each.measure, times

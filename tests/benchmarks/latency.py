"""How long one caller waits for results at ten jobs a second, from the call that enqueues to the result in hand."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator

from tests.benchmarks.clients import POLL_SECONDS, Client
from tests.benchmarks.ends import Stalled
from tests.benchmarks.figures import Figures, Plan, in_turn, percentile
from tests.benchmarks.markdown import ratio, section, spread, table
from tests.benchmarks.peers import CELERY_DB, CELERY_REDIS, SUREFOOT, UNSAFE
from tests.benchmarks.stage import Ground
from tests.benchmarks.workers import working

P50, P99 = "to the result, p50, ms", "to the result, p99, ms"
PEERS = (CELERY_REDIS, CELERY_DB, SUREFOOT, UNSAFE)
HERTZ = 10.0
SEED = 7
WARM_WAITS = 5


def play(ground: Ground, plan: Plan, figures: Figures, number: int) -> Iterator[str]:
    """Measure one round; yields a line for each peer."""
    for peer in in_turn(PEERS, number):
        with ground.stage() as stage, peer.on(stage) as client, working(client, peer.crew) as workers:
            workers.warm(client)
            taken = _wait(client, plan.waits)
        p50, p99 = statistics.median(taken), percentile(taken, 99)
        figures.add(P50, peer.name, p50)
        figures.add(P99, peer.name, p99)
        yield f"{peer.name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def _wait(client: Client, jobs: int) -> list[float]:
    """Return the milliseconds that each job took, each enqueued when the last is in hand.

    Raises:
        Stalled: If a result is not what it must be.
    """
    # Off the beat, or every job would meet the broker's and the disk's timers at the same point. The same for all.
    chance = random.Random(SEED)  # noqa: S311  spreads load, guards nothing
    taken: list[float] = []
    due = time.perf_counter()
    for number in range(-WARM_WAITS, jobs):
        due += chance.uniform(0.5, 1.5) / HERTZ
        time.sleep(max(0.0, due - time.perf_counter()))
        began = time.perf_counter()
        result = client.enqueue(number)()
        took = time.perf_counter() - began
        if result != number:
            raise Stalled(f"job {number} returned {result!r}")
        if number >= 0:
            taken.append(took * 1000)
    return taken


def show(plan: Plan, figures: Figures) -> str:
    """Return the section of the page."""
    rows = [
        (
            peer.name,
            *(spread(figures.of(measure, peer.name), 1) for measure in (P50, P99)),
            *(
                ratio(figures, (measure, peer.name), (measure, other.name))
                for other in (CELERY_REDIS, CELERY_DB)
                for measure in (P50, P99)
            ),
        )
        for peer in PEERS
    ]
    how = f"""One caller, {plan.waits} jobs a round at {HERTZ:g} a second, on warm workers that are idle in between.
        Surefoot's `Job.get` is woken over Redis and reads the ledger. Celery's `AsyncResult.get` is told the result
        over Redis; in the database it looks every {POLL_SECONDS * 1000:g} ms, where its stock backend connects anew for
        each look of a process that multiprocessing did not fork."""
    over = [f"{name} over Celery, {other} results" for other in ("Redis", "database") for name in ("p50", "p99")]
    return section("From enqueue to the result in hand", how, table(("", "p50, ms", "p99, ms", *over), rows))

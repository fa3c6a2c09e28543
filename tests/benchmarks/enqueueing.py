"""How many jobs one thread enqueues while no worker runs: one by one, and in batches."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.benchmarks.clients import BATCH, Client, SurefootClient
from tests.benchmarks.figures import Figures, Plan, in_turn
from tests.benchmarks.markdown import ratio, section, spread, table
from tests.benchmarks.peers import CELERY, SUREFOOT
from tests.benchmarks.stage import Ground

ONE_BY_ONE, IN_BATCHES = "enqueued one by one, jobs/s", "enqueued in batches, jobs/s"
# The first pay for imports and connections; everybody's are left out.
WARM_ENQUEUES = 20


def play(ground: Ground, plan: Plan, figures: Figures, number: int) -> Iterator[str]:
    """Measure one round; yields a line for each peer."""
    for peer in in_turn((CELERY, SUREFOOT), number):
        with ground.stage() as stage, peer.on(stage) as client:
            figures.add(ONE_BY_ONE, peer.name, _one_by_one(client, plan.enqueued))
            told = [f"{figures.of(ONE_BY_ONE, peer.name)[-1]:,.0f} jobs/s one by one"]
            if isinstance(client, SurefootClient):
                figures.add(IN_BATCHES, peer.name, _in_batches(client, plan.batched))
                told.append(f"{figures.of(IN_BATCHES, peer.name)[-1]:,.0f} in batches")
        yield f"{peer.name}: {', '.join(told)}"


def _one_by_one(client: Client, count: int) -> float:
    for number in range(WARM_ENQUEUES):
        client.enqueue(-1 - number)
    client.flush()
    began = time.perf_counter()
    for number in range(count):
        client.enqueue(number)
    client.flush()
    return count / (time.perf_counter() - began)


def _in_batches(client: SurefootClient, count: int) -> float:
    client.enqueue_all(-1, 1)
    batches = list(client.batches(0, count))  # what the requests are made of is the caller's
    began = time.perf_counter()
    for requests in batches:
        client.producer.enqueue_many(requests)
    client.flush()
    return count / (time.perf_counter() - began)


def show(plan: Plan, figures: Figures) -> str:
    """Return the section of the page."""
    celery = (ONE_BY_ONE, CELERY.name)
    ways = (
        ("Celery, `send_task`", celery),
        ("Surefoot, `enqueue`", (ONE_BY_ONE, SUREFOOT.name)),
        (f"Surefoot, `enqueue_many`, {BATCH:,} a batch", (IN_BATCHES, SUREFOOT.name)),
    )
    rows = [(name, spread(figures.of(*way)), ratio(figures, way, celery)) for name, way in ways]
    how = f"""One thread, {plan.enqueued:,} jobs one by one, {plan.batched:,} in batches; no worker runs. Celery's are
        in Redis when the call returns. Surefoot's are on Postgres's disk by then, and the clock runs until the last is
        rung in Redis, too."""
    return section("Enqueueing", how, table(("", "jobs/s", "over `send_task`"), rows))

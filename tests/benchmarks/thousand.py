"""A thousand actions of one second each, at once in one worker process: how long it takes, in how much memory."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.benchmarks import bare
from tests.benchmarks.clients import CeleryClient, SurefootClient
from tests.benchmarks.crew import ASYNCIO, Crew
from tests.benchmarks.ends import until_ended
from tests.benchmarks.figures import Figures, Plan, in_turn
from tests.benchmarks.markdown import section, spread, table
from tests.benchmarks.peers import Peer
from tests.benchmarks.stage import Ground
from tests.benchmarks.workers import working

JOBS = 1_000
SECONDS, PEAK = "a thousand waits, s", "a thousand waits, peak MiB"
WAITING = Peer(
    "Surefoot, `pure` action, asyncio", lambda stage: SurefootClient(stage, "bench.wait"), Crew(ASYNCIO, 1, JOBS)
)
WAITING_THREADS = Peer(
    "Celery, no results, threads",
    lambda stage: CeleryClient(stage, None, task=bare.WAIT),
    Crew("threads", 1, JOBS),
)
PEERS = (WAITING, WAITING_THREADS)
# Fine beside the second that each takes; the machine has little else to do meanwhile.
LOOK_SECONDS = 0.005


def play(ground: Ground, plan: Plan, figures: Figures, number: int) -> Iterator[str]:  # noqa: ARG001  as all measures
    """Measure one round; yields a line for each peer."""
    for peer in in_turn(PEERS, number):
        with ground.stage() as stage, peer.on(stage) as client, working(client, peer.crew) as workers:
            workers.warm(client)
            recorded = client.recorded(workers.logs)
            began = time.perf_counter()
            client.enqueue_all(0, JOBS)
            took = until_ended(client, look_seconds=LOOK_SECONDS) - began
            peak = workers.peak_mib()
            workers.confirm(client, recorded + JOBS)
        figures.add(SECONDS, peer.name, took)
        figures.add(PEAK, peer.name, peak)
        yield f"{peer.name}: {took:.2f} s, {peak:.0f} MiB"


def show(plan: Plan, figures: Figures) -> str:  # noqa: ARG001  as all measures
    """Return the section of the page."""
    rows = [
        (
            peer.name,
            str(peer.crew),
            spread(figures.of(SECONDS, peer.name), 2),
            spread(figures.of(PEAK, peer.name)),
        )
        for peer in PEERS
    ]
    how = f"""{JOBS:,} actions that wait for one second, enqueued while one worker runs, which is warm. The clock runs
        from the call (Surefoot: of one `enqueue_many`; Celery: of the first `send_task`) to the last result committed
        in the ledger (Celery: to the last acknowledgement). Memory is the worker process's peak since its start
        (VmHWM)."""
    return section("A thousand at once", how, table(("", "worker", "seconds", "peak, MiB"), rows))

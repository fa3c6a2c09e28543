"""What is measured, the same way for every peer.

The end of a job is seen in the broker: with late acknowledgement a message is gone from it when, and only when, all
that the peer records of the job has been recorded.
"""

from __future__ import annotations

import math
import random
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.benchmarks.cpu import cpu_seconds
from tests.benchmarks.peers import BATCH, Client, SurefootClient, worker_command, worker_environment
from tests.houses import ROOT

# Looking takes a core's time from those who are measured; at this pace, about one percent of it.
LOOK_SECONDS = 0.02
STALLED_SECONDS = 60.0
STOP_SECONDS = 20.0
# The first jobs pay for imports and connections; every peer's are left out.
WARM_ENQUEUES = 20
WARM_JOBS = 100
WARM_WAITS = 5
LATENCY_HERTZ = 10.0
LATENCY_SEED = 7


class Stalled(Exception):
    """A worker stopped working, or did not record what it did: the figures would be worth nothing."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A peer's worker process, and the file that it logs to."""

    pid: int
    log: Path


@dataclass(frozen=True, slots=True)
class Worked:
    """How a backlog was worked off.

    Attributes:
        rate: Jobs per second.
        cpu_us: Processor time per job in microseconds, by who spent it.
    """

    rate: float
    cpu_us: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the call that enqueues to the result in hand.

    Attributes:
        p50: Median.
        p99: Of so few jobs, nearly the slowest.
    """

    p50: float
    p99: float


def enqueue_rate(client: Client, count: int) -> float:
    """Return how many jobs per second one thread enqueues one by one; no worker runs."""
    for number in range(WARM_ENQUEUES):
        client.enqueue(-1 - number)
    began = time.perf_counter()
    for number in range(count):
        client.enqueue(number)
    return count / (time.perf_counter() - began)


def batch_rate(client: SurefootClient, batches: int) -> float:
    """Return how many jobs per second `enqueue_many` accepts and rings in batches of 1,000; no worker runs."""
    client.enqueue(-1)
    asked = [client.requests(first, first + BATCH) for first in range(0, batches * BATCH, BATCH)]
    began = time.perf_counter()
    for requests in asked:
        client.producer.enqueue_many(requests)
    return batches * BATCH / (time.perf_counter() - began)


@contextmanager
def working(client: Client) -> Iterator[Worker]:
    """Run the peer's worker. It may still be starting when the block begins."""
    log = client.stage.folder / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            worker_command(client.app), cwd=ROOT, env=worker_environment(client), stdout=output, stderr=output
        )
    try:
        yield Worker(process.pid, log)
        if process.poll() is not None:
            raise Stalled(f"the worker ended with {process.returncode}:\n{_end_of(log)}")
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def work_off(client: Client, worker: Worker, jobs: int) -> Worked:
    """Measure how the worker performs jobs that were enqueued before it started.

    The clock runs from the moment that the first hundred have ended until the last has.

    Raises:
        Stalled: If nothing ends for a minute, or fewer results are on record than jobs have ended.
    """
    spenders = {"worker": worker.pid, **client.stage.server_pids}
    with redis.Redis.from_url(client.stage.redis_url) as broker:
        began, left = _watch(client, broker, jobs)
        before = cpu_seconds(spenders)
        ended, _ = _watch(client, broker, 0)
        after = cpu_seconds(spenders)
    expected = jobs + WARM_JOBS
    if (recorded := client.recorded(worker.log)) != expected:
        raise Stalled(f"{recorded} of {expected} successes are on record:\n{_end_of(worker.log)}")
    return Worked(left / (ended - began), {who: (after[who] - before[who]) / left * 1e6 for who in after})


def _watch(client: Client, broker: redis.Redis, target: int) -> tuple[float, int]:
    """Wait until at most `target` jobs have not ended; return when that was seen, and how many were left."""
    reached: tuple[float, int] | None = None
    changed, before = time.perf_counter(), -1
    while True:
        left, now = client.stage.unfinished(broker, client.queue), time.perf_counter()
        if left > target:
            reached = None
        elif reached is not None:
            return reached  # seen twice: a message on its way from the queue to the worker is in neither for a moment
        else:
            reached = (now, left)
        if left != before:
            changed, before = now, left
        elif now - changed > STALLED_SECONDS:
            raise Stalled(f"{left} jobs are left and none has ended for {STALLED_SECONDS:g} s")
        time.sleep(LOOK_SECONDS)


def latency(client: Client, jobs: int) -> Latency:
    """Return how long one caller waits for results at ten jobs a second, each enqueued when the last is in hand.

    Raises:
        Stalled: If a result is not what it must be.
    """
    # Off the beat, or every job would meet the broker's and the disk's timers at the same point. The same for all.
    chance = random.Random(LATENCY_SEED)  # noqa: S311  spreads load, guards nothing
    taken: list[float] = []
    due = time.perf_counter()
    for number in range(-WARM_WAITS, jobs):
        due += chance.uniform(0.5, 1.5) / LATENCY_HERTZ
        time.sleep(max(0.0, due - time.perf_counter()))
        began = time.perf_counter()
        result = client.enqueue(1_000_000 + number)()
        took = time.perf_counter() - began
        if result != 1_000_000 + number:
            raise Stalled(f"job {1_000_000 + number} returned {result!r}")
        if number >= 0:
            taken.append(took * 1000)
    return Latency(statistics.median(taken), percentile(taken, 99))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of them do not exceed."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]

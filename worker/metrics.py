"""What Prometheus is told of a worker: everything that its processes have counted, as one.

In `prefork` each child counts into a file of its own, in memory that it shares with the first process, which serves all
of them. A file is its place's in the pool and not its process's: whoever comes after a child that died goes on counting
where that one was killed, so that nothing is lost and the files do not become more.

Labels are actions, states, and words of our own; never a tenant, a key, a job or anything that a caller chose.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from worker.attempt import Settlement
from worker.meter import Meter
from worker.performance import HELD

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# A look-up takes milliseconds, a model minutes.
ATTEMPT_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0)
DELAY_SECONDS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
WRITE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
LAG_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
ROWS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
# prometheus_client's own name for it.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
# Of the first process, beside its children's numbers.
FIRST = "first"

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # as many series again, which say when each was first counted


class _Children(dict[tuple[str, ...], Any]):
    """A metric's children by their labels. The library's own way to one takes a lock and makes each label text anew."""

    def __init__(self, metric: Counter | Histogram) -> None:
        """Have none yet."""
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> Any:
        self[labels] = child = self._metric.labels(*labels)
        return child


class Counting(Meter):
    """Counts for Prometheus; in this process's memory, or in files where the pool has several processes."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        """Count from 0, or go on where the files are."""

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"surefoot_worker_{name}", what, labels, registry=registry)

        def histogram(name: str, what: str, buckets: Iterable[float], *labels: str) -> Histogram:
            return Histogram(f"surefoot_worker_{name}", what, labels, buckets=tuple(buckets), registry=registry)

        # These three count each job.
        self._attempts = _Children(
            counter("attempts", "Attempts that ended, by what became of the job.", "action", "state")
        )
        self._took = _Children(
            histogram("attempt_seconds", "From the intent to the end of an attempt.", ATTEMPT_SECONDS, "action")
        )
        self._delay = _Children(
            histogram("claim_delay_seconds", "For how long a job was due when it was claimed.", DELAY_SECONDS, "action")
        )
        self._holds = counter("holds", "Jobs put back to wait without an attempt being spent.", "action", "reason")
        self._tokens = counter("tokens", "Tokens that attempts used.", "action", "direction")
        self._cost = counter("cost_usd", "What attempts cost, as far as prices are known.", "action")
        self._late = counter("late_outcomes", "Outcomes that came when the job was another worker's.")
        self._rows = histogram("batch_rows", "Rows written in one statement.", ROWS, "kind")
        self._writing = histogram("batch_seconds", "What a statement with its commit took.", WRITE_SECONDS, "kind")
        self._missed = counter("ledger_unreachable", "Times that Postgres did not answer a step of an attempt.")
        self._lost = counter("leases_lost", "Jobs that others took over while their attempts went on here.")
        self._rescued = counter("rescued_jobs", "Jobs taken over from silent workers.", "state")
        self._rang = counter("relay_rings", "Due jobs that nobody had rung, rung by this worker's relay.")
        self._moves = counter("breaker_moves", "Transitions of breakers that this worker brought about.", "state")
        self._lag = histogram("loop_lag_seconds", "What the event loop takes to get to something new.", LAG_SECONDS)

    def claimed(self, action: str, late_seconds: float) -> None:
        self._delay[(action,)].observe(late_seconds)

    def settled(self, action: str, settlement: Settlement) -> None:
        self._attempts[action, settlement.becomes].inc()
        if settlement.kind == HELD:
            self._holds.labels(action, str(settlement.waiting_for)).inc()
        if settlement.latency_ms is not None:
            self._took[(action,)].observe(settlement.latency_ms / 1000)
        for direction, tokens in (("in", settlement.tokens_in), ("out", settlement.tokens_out)):
            if tokens:
                self._tokens.labels(action, direction).inc(tokens)
        if settlement.cost_usd:
            self._cost.labels(action).inc(float(settlement.cost_usd))

    def late(self) -> None:
        self._late.inc()

    def wrote(self, kind: str, rows: int, seconds: float) -> None:
        self._rows.labels(kind).observe(rows)
        self._writing.labels(kind).observe(seconds)

    def ledger_missed(self) -> None:
        self._missed.inc()

    def lease_lost(self) -> None:
        self._lost.inc()

    def rescued(self, becomes: str) -> None:
        self._rescued.labels(becomes).inc()

    def rang(self, count: int) -> None:
        self._rang.inc(count)

    def breaker_moved(self, becomes: str) -> None:
        self._moves.labels(becomes).inc()

    def loop_answered(self, seconds: float) -> None:
        self._lag.observe(seconds)


def counting_alone() -> tuple[Counting, Callable[[], bytes]]:
    """Return what counts in a worker of one process, and what tells of it.

    The process's own figures come along, and what actions count by themselves.
    """
    registry = CollectorRegistry()
    counting = Counting(registry)
    return counting, lambda: generate_latest(registry) + generate_latest(prometheus_client.REGISTRY)


def counting_together() -> tuple[Counting, Callable[[], bytes]]:
    """Return what counts in the first process of several, and what tells of all.

    Each child calls `counting_in_child`.
    """
    folder = Path(tempfile.mkdtemp(prefix="surefoot-metrics-"))
    os.environ[FOLDER_VARIABLE] = str(folder)
    first = os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == first else None)

    def text() -> bytes:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
        return generate_latest(registry) + generate_latest(prometheus_client.REGISTRY)

    return _counting_as(FIRST), text


def counting_in_child(place: int) -> Counting:
    """Return what counts in a child of a pool, by its place there."""
    return _counting_as(str(place))


def _counting_as(name: str) -> Counting:
    # Made anew in each child: a lock of the parent's may have been held in the moment of the fork.
    values.ValueClass = values.MultiProcessValue(lambda: name)  # type: ignore[no-untyped-call]
    return Counting(None)


class Rings(Collector):
    """How much of what it may take up a worker has taken up."""

    def __init__(self, taken: Callable[[], int], places: Callable[[], int]) -> None:
        """Ask these when Prometheus asks."""
        self._taken, self._places = taken, places

    def collect(self) -> Iterable[Metric]:
        """Return both gauges."""
        yield GaugeMetricFamily("surefoot_worker_rings", "Rings that are being answered.", value=self._taken())
        yield GaugeMetricFamily("surefoot_worker_places", "How many may be at a time.", value=self._places())

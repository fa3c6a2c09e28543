"""What Prometheus is told: requests as they come, and how the ledger stands when it asks.

Labels are names of routes, methods, states and statuses; never of tenants, keys, jobs or anything that a caller chose.
But for queues, which a request may name, budgets, and breakers that are not closed: of each there are so many at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from producer.breaker_words import CLOSED, HALF_OPEN, OPEN
from producer.breakers import BreakerRecord
from producer.ledger.gate_standing import BudgetSums, GateStanding
from producer.ledger.overview import Standing

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
MOST_QUEUES = 50
MOST_BREAKERS = 100
MOST_BUDGETS = 50
STATES = (CLOSED, HALF_OPEN, OPEN)
OF_A_BUDGET = {
    "ceiling": "The most that each share may spend.",
    "spent": "Spent of all shares that are not over.",
    "reserved": "Reserved of all shares that are not over.",
    "left": "What may still be reserved of the share of which least is left.",
}
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

disable_created_metrics()  # type: ignore[no-untyped-call]  # as many series again, which say when each was first counted


class Metrics:
    """One app's."""

    def __init__(self) -> None:
        """Count from 0."""
        self._registry = CollectorRegistry()
        names = ("method", "route", "status")
        self._requests = Counter(
            "surefoot_api_requests", "Requests answered; status 0 was cut off.", names, registry=self._registry
        )
        self._seconds = Histogram(
            "surefoot_api_request_seconds",
            "From a request's first byte to its answer's last; long polls wait.",
            ("method", "route"),
            buckets=SECONDS,
            registry=self._registry,
        )

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request. A method that is none is counted as ``other``: a caller chooses its name."""
        method = method if method in METHODS else "other"
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)

    def text(self, standing: Standing, gates: GateStanding, breakers: Sequence[BreakerRecord] | None) -> bytes:
        """Return everything in Prometheus's text format; `breakers` is None where nobody could say how they stand."""
        now = CollectorRegistry()
        now.register(_Ledger(standing))
        now.register(_Gates(gates))
        if breakers is not None:
            now.register(_Breakers(breakers))
        return generate_latest(self._registry) + generate_latest(now)


class _Ledger(Collector):
    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def collect(self) -> Iterable[Metric]:
        jobs = GaugeMetricFamily("surefoot_jobs", "Jobs on their way, or to be looked at, by state.", labels=("state",))
        for state, count in self._standing.jobs.items():
            jobs.add_metric((str(state),), count)
        yield jobs
        waiting = GaugeMetricFamily("surefoot_jobs_waiting", "Jobs that wait, by what for.", labels=("waiting_for",))
        for reason, count in self._standing.waiting_for.items():
            waiting.add_metric((reason,), count)
        yield waiting
        yield GaugeMetricFamily(
            "surefoot_due_jobs", "Jobs that are due and that no worker has.", value=self._standing.due
        )
        yield GaugeMetricFamily(
            "surefoot_oldest_due_seconds", "For how long the oldest of those is due.", value=self._standing.oldest_due
        )
        yield from self._queues()

    def _queues(self) -> Iterable[Metric]:
        jobs = GaugeMetricFamily(
            "surefoot_queue_jobs",
            "Jobs of a queue that keep its workers busy: due ones, and those that workers have.",
            labels=("queue", "standing"),
        )
        oldest = GaugeMetricFamily(
            "surefoot_queue_oldest_due_seconds", "For how long the oldest due job of a queue is.", labels=("queue",)
        )
        most = sorted(self._standing.queues.items(), key=lambda each: -(each[1].due + each[1].leased))[:MOST_QUEUES]
        for name, queue in most:
            jobs.add_metric((name, "due"), queue.due)
            jobs.add_metric((name, "leased"), queue.leased)
            oldest.add_metric((name,), queue.oldest_due)
        yield jobs
        yield oldest


class _Gates(Collector):
    def __init__(self, gates: GateStanding) -> None:
        self._gates = gates

    def collect(self) -> Iterable[Metric]:
        yield from self._budgets()
        yield GaugeMetricFamily(
            "surefoot_approvals_pending", "Approvals that nobody has decided.", value=self._gates.pending
        )
        yield GaugeMetricFamily(
            "surefoot_approvals_oldest_pending_seconds",
            "For how long the oldest of those waits.",
            value=self._gates.oldest_pending,
        )
        decided = GaugeMetricFamily(
            "surefoot_approvals_decided",
            "Approvals that were decided in the last day, by what was.",
            labels=("verdict",),
        )
        for verdict, count in self._gates.decided.items():
            decided.add_metric((str(verdict),), count)
        yield decided

    def _budgets(self) -> Iterable[Metric]:
        names = ("budget", "per", "unit")
        families: dict[str, GaugeMetricFamily] = {
            word: GaugeMetricFamily(f"surefoot_budget_{word}", what, labels=names) for word, what in OF_A_BUDGET.items()
        }
        for each in _tightest(self._gates.budgets):
            for word, family in families.items():
                family.add_metric((each.budget, ",".join(each.per), each.unit), float(getattr(each, word)))
        yield from families.values()


def _tightest(sums: Sequence[BudgetSums]) -> Iterable[BudgetSums]:
    """Return all that there is of so many budgets: of those of which the smallest part is left."""
    least: dict[str, float] = {}
    for each in sums:
        least[each.budget] = min(each.part_left, least.get(each.budget, each.part_left))
    shown = set(sorted(least, key=lambda name: (least[name], name))[:MOST_BUDGETS])
    return (each for each in sums if each.budget in shown)


class _Breakers(Collector):
    def __init__(self, breakers: Sequence[BreakerRecord]) -> None:
        self._breakers = breakers

    def collect(self) -> Iterable[Metric]:
        counts = GaugeMetricFamily("surefoot_breakers", "Breakers of the fleet, by state.", labels=("state",))
        for state in STATES:
            counts.add_metric((state,), sum(each.state == state for each in self._breakers))
        yield counts
        stopped = GaugeMetricFamily(
            "surefoot_breaker_open",
            "Breakers that are not closed: 1 is open, 0.5 half-open.",
            labels=("breaker",),
        )
        for each in [each for each in self._breakers if each.state != CLOSED][:MOST_BREAKERS]:
            stopped.add_metric((each.name,), 1.0 if each.state == OPEN else 0.5)
        yield stopped

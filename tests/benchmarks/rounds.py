"""Every peer in turn, round after round, so that whatever drifts on the machine hits all alike."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.measures import WARM_JOBS, batch_rate, enqueue_rate, latency, work_off, working
from tests.benchmarks.peers import BATCH, PEERS, Peer, SurefootClient
from tests.benchmarks.stage import stage
from worker.dev.servers import Servers

ENQUEUE, BATCHES, WORK, P50, P99 = "enqueue", "batches", "work", "p50", "p99"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: How often each peer plays.
        jobs: Worked off by each peer's worker in a round.
        waits: Results waited for in a round, at ten a second.
    """

    rounds: int
    jobs: int
    waits: int

    @property
    def enqueues(self) -> int:
        """Jobs enqueued one by one in a round."""
        return self.jobs // 2

    @property
    def batches(self) -> int:
        """Batches enqueued in a round."""
        return max(1, self.jobs // BATCH)


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured: for each measure and peer, one figure a round."""

    taken: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, measure: str, peer: Peer, figure: float) -> None:
        """Keep one round's figure."""
        self.taken[measure, peer.name].append(figure)

    def of(self, measure: str, peer: Peer) -> list[float]:
        """Return the figures of all rounds, in order."""
        return self.taken[measure, peer.name]

    def ratios(self, mine: tuple[str, Peer], other: tuple[str, Peer]) -> list[float]:
        """Return one figure over another, round by round."""
        return [a / b for a, b in zip(self.of(*mine), self.of(*other), strict=True)]

    def ratio(self, mine: tuple[str, Peer], other: tuple[str, Peer]) -> float:
        """Return the median of these ratios."""
        return statistics.median(self.ratios(mine, other))


def play(running: Servers, folder: Path, plan: Plan, say: Callable[[str], None]) -> Figures:
    """Measure every peer in every round; `say` is told each figure as it comes."""
    figures = Figures()
    for number in range(1, plan.rounds + 1):
        say(f"Round {number} of {plan.rounds}")
        # A B C, then B C A: nobody always plays after the same neighbour.
        for peer in (*PEERS[number % len(PEERS) :], *PEERS[: number % len(PEERS)]):
            if peer.enqueues:
                _enqueue(running, folder, plan, peer, figures)
            _work(running, folder, plan, peer, figures)
            say(f"  {peer.name:<32}{_told(figures, peer)}")
    return figures


def _enqueue(running: Servers, folder: Path, plan: Plan, peer: Peer, figures: Figures) -> None:
    with stage(running, folder) as fresh:
        client = peer.client(fresh)
        figures.add(ENQUEUE, peer, enqueue_rate(client, plan.enqueues))
        if isinstance(client, SurefootClient):
            figures.add(BATCHES, peer, batch_rate(client, plan.batches))
        client.close()


def _work(running: Servers, folder: Path, plan: Plan, peer: Peer, figures: Figures) -> None:
    with stage(running, folder) as fresh:
        client = peer.client(fresh)
        client.enqueue_all(plan.jobs + WARM_JOBS)
        with working(client) as worker:
            worked = work_off(client, worker, plan.jobs)
            figures.add(WORK, peer, worked.rate)
            for who, spent in worked.cpu_us.items():
                figures.add(who, peer, spent)
            if peer.has_results:
                waited = latency(client, plan.waits)
                figures.add(P50, peer, waited.p50)
                figures.add(P99, peer, waited.p99)
        client.close()


def _told(figures: Figures, peer: Peer) -> str:
    units = {ENQUEUE: "enqueued/s", BATCHES: "in batches/s", WORK: "jobs/s", P50: "ms p50", P99: "ms p99"}
    told = ((figures.of(measure, peer), unit) for measure, unit in units.items())
    return ", ".join(
        f"{taken[-1]:,.0f} {unit}" if "ms" not in unit else f"{taken[-1]:.1f} {unit}" for taken, unit in told if taken
    )

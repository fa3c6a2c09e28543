"""Every measure and every peer in turn, round after round, so that whatever drifts on the machine hits all alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType

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
from tests.benchmarks.figures import Figures, Plan
from tests.benchmarks.stage import Ground

Play = Callable[[Ground, Plan, Figures, int], Iterator[str]]
Show = Callable[[Plan, Figures], str]

BY_ROUND: Mapping[str, Play] = MappingProxyType(
    {
        "enqueueing": enqueueing.play,
        "backlog": backlog.play,
        "stream": stream.play,
        "latency": latency.play,
        "thousand": thousand.play,
        "breaker": breaker.play,
        "http": over_http.play,
        "console": console.play,
        "gates": gates.play,
        "metrics": counting.play,
    }
)
# Fills its ledger once, and last: a database of gigabytes beside it would be no fair neighbour for the others.
LEDGER = "ledger"
SECTIONS: Mapping[str, Show] = MappingProxyType(
    {
        "enqueueing": enqueueing.show,
        "backlog": backlog.show,
        "stream": stream.show,
        "latency": latency.show,
        "thousand": thousand.show,
        "breaker": breaker.show,
        "http": over_http.show,
        "console": console.show,
        "gates": gates.show,
        "metrics": counting.show,
        LEDGER: full_ledger.show,
    }
)


def play(ground: Ground, plan: Plan, only: Collection[str], say: Callable[[str], None]) -> Figures:
    """Measure what is named in `only`, in every round; `say` is told each figure as it comes."""
    figures = Figures()
    for number in range(plan.rounds):
        for name, measure in BY_ROUND.items():
            if name in only:
                for line in measure(ground, plan, figures, number):
                    say(f"{number + 1}/{plan.rounds} {name:<12}{line}")
    if LEDGER in only:
        for line in full_ledger.play(ground, plan, figures):
            say(f"    {LEDGER:<12}{line}")
    return figures

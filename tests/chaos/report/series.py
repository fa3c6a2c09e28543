"""The samples, the faults and the recoveries as lines and marks over time, in seconds since the run began."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from tests.chaos.checker.pacing import recoveries
from tests.chaos.checker.view import View
from tests.chaos.report.growth import Points, thinned
from tests.chaos.report.inputs import Inputs, Process, Sample

# A picture has room for so many; more would only make the page heavy.
MOST_POINTS = 240
MOST_IN_SPARKS = 120
# Samples further apart than this have a gap between them: the sampler was kept, or a server was away.
GAP_SECONDS = 5.0
# A worker's connections: its host, its process, and what they are for.
OF_WORKER = re.compile(r":\d+( lease| relay)?$")

Felt = Literal["bit", "unfelt", "unsure"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A fault; `ended` is its begin where it was over at once."""

    kind: str
    target: str
    began: float
    ended: float
    felt: Felt


@dataclass(frozen=True, slots=True)
class Place:
    """What ran at one place of the crew, one process after the other.

    Attributes:
        memory: MiB, a line for each process.
        connections: To Postgres, as far as they bear the process's own name; a line for each process.
        lives: How many processes there were.
        files: The most that any of them had open, as `threads`.
    """

    name: str
    memory: tuple[Points, ...]
    connections: tuple[Points, ...]
    lives: int
    files: int
    threads: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """All that is drawn of a run.

    Attributes:
        seconds: How long it took.
        throughput: Jobs a second, in pieces where the ledger could be read.
        backlog: For each layer its jobs, over the same moments.
        recovered: When a job was taken up again, and after how many seconds.
        storm: From the first fault's begin to the last one's end; None where there was none.
        connections: Lines of connections by whose they are.
    """

    seconds: float
    throughput: tuple[Points, ...]
    backlog: Mapping[str, Points]
    marks: tuple[Mark, ...]
    recovered: Points
    storm: tuple[float, float] | None
    places: tuple[Place, ...]
    connections: Mapping[str, tuple[Points, ...]]


LAYERS: Mapping[str, tuple[str, ...]] = {
    "in doubt": ("in_doubt",),
    "in hand": ("claimed", "running"),
    "waiting": ("waiting",),
    "queued": ("queued",),
}


def timeline_of(inputs: Inputs) -> Timeline:
    """Return what is drawn of a run."""
    began, ended = inputs.evidence.run.began, inputs.evidence.run.ended
    known = [sample for sample in inputs.samples if sample.states]
    marks = tuple(sorted(_marks(inputs, began), key=lambda mark: mark.began))
    recovered = [(each.event.at - began, each.seconds) for each in recoveries(View(inputs.evidence))]
    return Timeline(
        seconds=max(1.0, ended - began),
        throughput=_throughput(known, began),
        backlog=_backlog(known, began),
        marks=marks,
        recovered=sorted(recovered),
        storm=(marks[0].began, max(mark.ended for mark in marks)) if marks else None,
        places=tuple(_places(inputs.samples, began)),
        connections=_connections(inputs.samples, began),
    )


def plain(drawn: Timeline) -> dict[str, Any]:
    """Return what is drawn, for `report.json`: MiB, connections, jobs and faults by seconds since the run began."""
    return {
        "faults": [[m.kind, m.target, round(m.began, 1), round(m.ended, 1), m.felt] for m in drawn.marks],
        "recovered": _plain([drawn.recovered])[0],
        "throughput": _plain(drawn.throughput),
        "backlog": {layer: _plain([line]) for layer, line in drawn.backlog.items()},
        "memory": {place.name: _plain(place.memory) for place in drawn.places},
        "postgres_connections": {place.name: _plain(place.connections) for place in drawn.places if place.connections},
        "connections": {whose: _plain(lines) for whose, lines in drawn.connections.items()},
    }


def _plain(lines: Sequence[Points]) -> list[list[list[float]]]:
    return [[[round(at, 1), round(value, 1)] for at, value in line] for line in lines]


def _throughput(samples: Sequence[Sample], began: float) -> tuple[Points, ...]:
    taken = _every(samples)
    rates = [
        (later.at - began, max(0.0, (later.done - earlier.done) / (later.at - earlier.at)))
        for earlier, later in pairwise(taken)
        if later.at > earlier.at
    ]
    return _pieces(rates, GAP_SECONDS * max(1.0, len(samples) / max(1, len(taken))))


def _every(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Return at most as many samples as a picture has room for, at equal distances."""
    step = max(1, -(-len(samples) // MOST_POINTS))
    return samples[::step]


def _backlog(samples: Sequence[Sample], began: float) -> Mapping[str, Points]:
    return {
        layer: [(sample.at - began, float(sum(sample.states.get(state, 0) for state in states))) for sample in taken]
        for taken in [_every(samples)]
        for layer, states in LAYERS.items()
    }


def _marks(inputs: Inputs, began: float) -> Iterator[Mark]:
    for fault in inputs.evidence.faults:
        if fault.kind is None or fault.phase != "end":
            continue
        begin, end = fault.began or fault.at, fault.ended or fault.at
        felt: Felt = "unsure" if fault.bit is None else "bit" if fault.bit else "unfelt"
        yield Mark(fault.kind, fault.target, begin - began, max(begin, end) - began, felt)


def _places(samples: Sequence[Sample], began: float) -> Iterator[Place]:
    found: dict[str, list[tuple[Sample, Process]]] = {}
    for sample in samples:
        for each in sample.processes:
            found.setdefault(each.name.rpartition(".")[0] or each.name, []).append((sample, each))
    for name, seen in sorted(found.items()):
        memory: dict[int, list[tuple[float, float]]] = {}
        connections: dict[int, list[tuple[float, float]]] = {}
        for sample, each in seen:
            at = sample.at - began
            memory.setdefault(each.pid, []).append((at, each.rss_kib / 1024))
            if held := _held_by(each.pid, sample.postgres):
                connections.setdefault(each.pid, []).append((at, held))
        share = max(2, MOST_IN_SPARKS // len(memory))
        yield Place(
            name=name,
            memory=tuple(thinned(life, share) for life in memory.values()),
            connections=tuple(thinned(life, share) for life in connections.values()),
            lives=len(memory),
            files=max(each.fds for _, each in seen),
            threads=max(each.threads for _, each in seen),
        )


def _held_by(pid: int, postgres: Mapping[str, int]) -> float:
    """Return how many connections bear a worker's name, which its process's number ends but for what they are for."""
    own = f":{pid}"
    return float(sum(count for name, count in postgres.items() if name.partition(" ")[0].endswith(own)))


def _connections(samples: Sequence[Sample], began: float) -> Mapping[str, tuple[Points, ...]]:
    lines: dict[str, list[tuple[float, float]]] = {"workers to Postgres": [], "others to Postgres": [], "to Redis": []}
    for sample in samples:
        at = sample.at - began
        if sample.states:
            workers = sum(count for name, count in sample.postgres.items() if OF_WORKER.search(name))
            lines["workers to Postgres"].append((at, float(workers)))
            lines["others to Postgres"].append((at, float(sum(sample.postgres.values()) - workers)))
        if sample.redis_clients >= 0:
            lines["to Redis"].append((at, float(sample.redis_clients)))
    return {name: _pieces(thinned(line, MOST_POINTS), _gap(line)) for name, line in lines.items()}


def _gap(line: Points) -> float:
    return GAP_SECONDS * max(1.0, len(line) / MOST_POINTS)


def _pieces(line: Points, gap: float) -> tuple[Points, ...]:
    """Split a line where nothing was seen for longer than `gap`."""
    pieces: list[list[tuple[float, float]]] = []
    for point in line:
        if not pieces or point[0] - pieces[-1][-1][0] > gap:
            pieces.append([])
        pieces[-1].append(point)
    return tuple(pieces)

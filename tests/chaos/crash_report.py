"""What a matrix came to, for people: a table of its cells, its figures, and what did not hold."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.chaos.deaths import DEATHS
from tests.chaos.judged import Judged

# What the checker's invariants mean to whoever reads one line.
FIGURES = {
    "lost": ("I1",),
    "phantom": ("I2",),
    "duplicate effects": ("I3",),
    "doubt not shown": ("I6",),
    "late requests": ("I22",),
    "illegal moves": ("I7", "I8", "I9"),
}


def report(judged: Sequence[Judged], *, seconds: float) -> str:
    """Return the whole report."""
    return "\n".join([*_table(judged), "", *_figures(judged, seconds), *_reasons(judged)])


def _table(judged: Sequence[Judged]) -> Iterator[str]:
    """Yield a line for each point; a cell of the table says how many of its effect classes held."""
    points = list(dict.fromkeys(each.cell.row for each in judged))
    width = max(map(len, points), default=0)
    yield "  ".join([" " * width, *(f"{death:>17}" for death in DEATHS)])
    for point in points:
        row = [f"{point:<{width}}"]
        for death in DEATHS:
            cells = [each for each in judged if (each.cell.row, each.cell.death) == (point, death)]
            row.append(f"{_told(cells):>17}")
        yield "  ".join(row)


def _told(cells: Sequence[Judged]) -> str:
    counts = Counter(each.verdict for each in cells)
    if not cells:
        return "-"
    told = f"{counts['held']}/{len(cells)}"
    told += f" {counts['broken']} BROKEN" if counts["broken"] else ""
    return told + (f" {counts['inconclusive']} unclear" if counts["inconclusive"] else "")


def _figures(judged: Sequence[Judged], seconds: float) -> Iterator[str]:
    counts = Counter(each.verdict for each in judged)
    yield (
        f"{len(judged)} cells in {seconds:.0f} s: {counts['held']} held, {counts['broken']} broken,"
        f" {counts['inconclusive']} inconclusive"
    )
    found = {name: sum(any(map(each.breaks, ids)) for each in judged) for name, ids in FIGURES.items()}
    yield ", ".join(f"{name} {count}" for name, count in found.items())
    doubted = sum(each.state == "in_doubt" for each in judged)
    recoveries = sorted(each.recovery for each in judged if each.recovery is not None)
    if recoveries:
        middle, last = recoveries[len(recoveries) // 2], recoveries[math.ceil(0.99 * len(recoveries)) - 1]
        yield f"in doubt {doubted}; from the death to the job's end: p50 {middle:.1f} s, p99 {last:.1f} s"


def _reasons(judged: Sequence[Judged]) -> Iterator[str]:
    for each in judged:
        if each.verdict != "held":
            yield f"\n{each.verdict}: {each.cell.name}  ({each.folder})"
            yield from (f"  {line}" for line in each.why)

"""The table of the defects: which, where, found by what and how soon, and what the same place says without it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.judged import Judged
from tests.chaos.mutants.catalogue import FOUND, Found

SHOWN = 110  # characters of what was found
INTRODUCTION = """\
# Deliberate defects, and what found them

The chaos runs and the crash matrix prove something only if their checker would find a defect. So defects are put into
workers and producers of a test, never into the product: each is played where it shows, and so is the same place
without it. The checker has to find the first, by an invariant that is about it, within five minutes; and nothing is to
be found in the second. What each invariant is, `tests/chaos/checker/__init__.py` lists.

    make mutants
"""
HEAD = ("| defect | what is wrong | played in | found by | after | without it |", "|---|---|---|---|---|---|")


@dataclass(frozen=True, slots=True)
class Row:
    """One defect.

    Attributes:
        judged: What became of it.
        control: What became of the same place without it.
        most_seconds: How soon it has to be found.
    """

    name: str
    found: Found
    judged: Judged
    control: Judged
    most_seconds: float

    @property
    def by(self) -> str | None:
        """The invariant that found it; None where none did that is about it."""
        return next((each for each in self.found.invariants if self.judged.breaks(each)), None)

    @property
    def is_found(self) -> bool:
        """Whether it was found in time."""
        return self.by is not None and self.judged.took <= self.most_seconds

    @property
    def is_well(self) -> bool:
        """Whether it was found, and nothing is where it is not."""
        return self.is_found and self.control.verdict == "held"

    @property
    def why(self) -> str:
        """What was found, in short; else what came of it."""
        lines = [line for line in self.judged.why if self.by is not None and line.startswith(f"{self.by} ")]
        told = lines[0].removeprefix(f"{self.by} ") if lines else "; ".join((self.judged.verdict, *self.judged.why))
        return textwrap.shorten(told, SHOWN, placeholder=" …")


def rows_of(judged: Sequence[Judged], *, most_seconds: float) -> list[Row]:
    """Return a row for each defect that was played."""
    controls = {each.cell.name: each for each in judged if each.cell.mutant is None}
    return [
        Row(each.cell.mutant, FOUND[each.cell.mutant], each, controls[FOUND[each.cell.mutant].cell], most_seconds)
        for each in judged
        if each.cell.mutant is not None
    ]


def as_text(rows: Sequence[Row], *, seconds: float) -> str:
    """Return the table for a terminal."""
    lines = [f"{'defect':22} {'found by':9} {'after':>6}  {'without it':13} what was found"]
    for row in rows:
        by = row.by or "NOT FOUND"
        lines.append(f"{row.name:22} {by:9} {row.judged.took:4.0f} s  {row.control.verdict:13} {row.why}")
    return "\n".join([*lines, "", _sum(rows, seconds)])


def as_page(rows: Sequence[Row], *, seconds: float, where: str) -> str:
    """Return the table as a page of the documents; `where` names the machine and the day."""
    lines = [
        INTRODUCTION,
        "| defect | what is wrong | played in | found by | after | without it |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            f"`{row.name}`",
            row.found.what,
            f"`{row.found.cell}`",
            row.by or "**not found**",
            f"{row.judged.took:.0f} s",
            row.control.verdict,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{_sum(rows, seconds)} ({where})", ""])


def _sum(rows: Sequence[Row], seconds: float) -> str:
    places = {row.found.cell: row.control.verdict for row in rows}
    found, held = sum(row.is_found for row in rows), sum(verdict == "held" for verdict in places.values())
    slowest = max((row.judged.took for row in rows), default=0.0)
    return (
        f"{found} of {len(rows)} defects found, the slowest after {slowest:.0f} s;"
        f" without them {held} of {len(places)} places held; {seconds:.0f} s in all"
    )

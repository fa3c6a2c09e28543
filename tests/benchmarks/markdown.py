"""The pieces that a page is made of: sections, paragraphs, tables, and figures as text."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterable, Sequence

from tests.benchmarks.figures import Figures, Key

WIDTH = 120
PAIR = 2
# What a table and a list begin with, whose lines stay as they are.
MADE_UP = ("| ", "* ")


def section(title: str, *parts: str) -> str:
    """Return a section of paragraphs, which are filled to the page's width, tables and lists."""
    return "\n\n".join((f"## {title}", *(part if part.startswith(MADE_UP) else paragraph(part) for part in parts)))


def paragraph(text: str) -> str:
    """Return `text` in lines of the page's width."""
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, whose columns after the first are figures where it has more than two."""
    rules = ["---", *["---:"] * (len(heads) - 1)] if len(heads) > PAIR else ["---"] * PAIR
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows))


def spread(figures: Sequence[float], digits: int = 0, unit: str = "") -> str:
    """Return the median with the smallest and the largest, ``**2.10** (1.95 to 2.20)``; empty where there is none."""
    if not figures:
        return ""
    low, middle, high = (f"{each:,.{digits}f}" for each in (min(figures), statistics.median(figures), max(figures)))
    return f"**{middle}{unit}** ({low} to {high})"


def ratio(figures: Figures, mine: Key, other: Key) -> str:
    """Return one figure over another, taken within each round or comparison, as `spread` does."""
    return "1" if mine == other else spread(figures.ratios(mine, other), 2)

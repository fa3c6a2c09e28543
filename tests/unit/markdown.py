"""Reading the tables of a page, so that what it says can be compared with what is."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"

Table = list[dict[str, str]]


def tables(page: str) -> list[Table]:
    """Return a page's tables in order, each row by its column's heading; backticks are left out."""
    text = (DOCS / page).read_text(encoding="utf-8").replace("`", "")
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    return [_table(block.splitlines()) for block in blocks]


def table(page: str, *columns: str) -> Table:
    """Return the page's one table whose first columns these are."""
    (found,) = (each for each in tables(page) if tuple(each[0])[: len(columns)] == columns)
    return found


def _table(lines: list[str]) -> Table:
    heading, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in lines)
    return [dict(zip(heading, row, strict=True)) for row in rows]

"""Every deliberate defect where it shows, and the same places without: the checker finds the first, not the second.

    python -m tests.chaos.mutants [--only PART] [--lanes N] [--keep FOLDER] [--page FILE]

Exits with 0 where the checker finds each defect, by an invariant that is about it, within five minutes, and where
everything holds that has none; else with 1. The evidence of what it should have found, or should not, stays.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from tests.chaos.crashes import LANES_PER_PROCESSOR, keep_evidence, say
from tests.chaos.judged import Judged
from tests.chaos.matrix import CONTROLS, MUTANTS, Matrix
from tests.chaos.mutants.table import Row, as_page, as_text, rows_of

MOST_SECONDS = 300.0


@click.command()
@click.option("--only", multiple=True, help="Defects whose names hold this; may be given several times.")
@click.option(
    "--lanes", default=LANES_PER_PROCESSOR * (os.cpu_count() or 1), show_default=True, help="Cells at a time."
)
@click.option("--keep", type=click.Path(path_type=Path), help="Where to leave the evidence, that of the others too.")
@click.option("--page", type=click.Path(path_type=Path), help="Where to write the table as a page of the documents.")
def main(only: tuple[str, ...], lanes: int, keep: Path | None, page: Path | None) -> None:
    """Play the defects and report on them."""
    mutants = [piece for piece in MUTANTS if not only or any(part in str(piece.mutant) for part in only)]
    places = {piece.name.removeprefix(f"{piece.mutant}-") for piece in mutants}
    controls = [piece for piece in CONTROLS if piece.name in places]
    folder, began = Path(tempfile.mkdtemp(prefix="mutants-")), time.monotonic()
    judged = Matrix(folder / "m", on_judged=_say).play([*mutants, *controls], lanes=lanes)
    rows = rows_of(judged, most_seconds=MOST_SECONDS)
    seconds = time.monotonic() - began
    keep_evidence([each for each in judged if _is_strange(each, rows)], folder, keep)
    click.echo(as_text(rows, seconds=seconds))
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(as_page(rows, seconds=seconds, where=_where()), encoding="utf-8")
    sys.exit(0 if rows and all(row.is_well for row in rows) else 1)


def _say(judged: Judged) -> None:
    if judged.cell.mutant is None:
        say(judged)


def _is_strange(judged: Judged, rows: list[Row]) -> bool:
    """Whether this is one of those that somebody will want to look into."""
    return judged.verdict == "inconclusive" or any(
        judged in (row.judged, row.control) and not row.is_well for row in rows
    )


def _where() -> str:
    python, machine = (
        platform.python_version(),
        f"{os.cpu_count()} processors, {platform.system()} {platform.machine()}",
    )
    return f"{machine}, Python {python}, {datetime.now(UTC):%Y-%m-%d}"


if __name__ == "__main__":
    main()

"""The crash matrix: one job, a death at each named point of its way, and the checker's word on what came of it.

    python -m tests.chaos.crashes [--only PART] [--lanes N] [--keep FOLDER]

The scenarios go with it: jobs that need one another, and a death among them. Exits with 0 where all held, with 1 where
one is broken, and with 2 where one says nothing: its death could not be brought about. The evidence of those stays in
the folder that the report names.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.chaos.crash_report import report
from tests.chaos.judged import Judged
from tests.chaos.matrix import PIECES, Matrix

# Cells mostly wait, for leases to run out and for processes to start.
LANES_PER_PROCESSOR = 5


@click.command()
@click.option("--only", multiple=True, help="Cells whose names hold this; may be given several times.")
@click.option(
    "--lanes", default=LANES_PER_PROCESSOR * (os.cpu_count() or 1), show_default=True, help="Cells at a time."
)
@click.option("--keep", type=click.Path(path_type=Path), help="Where to leave the evidence, that of held cells too.")
def main(only: tuple[str, ...], lanes: int, keep: Path | None) -> None:
    """Play the matrix and report on it."""
    cells = [piece for piece in PIECES if not only or any(part in piece.name for part in only)]
    folder = Path(tempfile.mkdtemp(prefix="crashes-"))
    began = time.monotonic()
    judged = Matrix(folder / "m", on_judged=say).play(cells, lanes=lanes)
    keep_evidence(judged, folder, keep)
    click.echo(f"\n{report(judged, seconds=time.monotonic() - began)}")
    verdicts = {each.verdict for each in judged}
    sys.exit(1 if "broken" in verdicts else 2 if "inconclusive" in verdicts or not judged else 0)


def say(judged: Judged) -> None:
    """Say what a cell came to, where somebody looks on or it did not hold."""
    if sys.stderr.isatty() or judged.verdict != "held":
        click.echo(f"{judged.verdict:12} {judged.cell.name} {judged.took:.1f} s", err=True)


def keep_evidence(judged: list[Judged], folder: Path, keep: Path | None) -> None:
    """Leave the folders of what did not hold, or all of them elsewhere; remove the servers' data."""
    for each in judged:
        if keep is not None:
            each.folder = Path(shutil.copytree(each.folder, keep / each.cell.name, dirs_exist_ok=True))
        elif each.verdict == "held":
            shutil.rmtree(each.folder, ignore_errors=True)
    for path in (folder / "m").iterdir():
        if path.name != "evidence":
            shutil.rmtree(path, ignore_errors=True)
    if keep is not None or all(each.verdict == "held" for each in judged):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

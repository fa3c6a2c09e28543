"""The crash matrix: one job, a death at each named point of its way, and the checker's word on what came of it.

    python -m tests.chaos.crashes [--only PART] [--lanes N] [--keep FOLDER] [--mutants]

Exits with 0 where all cells held, with 1 where one is broken, and with 2 where one says nothing: its death could not be
brought about. The evidence of those stays in the folder that the report names. With --mutants the workers have
deliberate defects, and it exits with 0 where the checker finds each of them.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.chaos.judged import Judged
from tests.chaos.matrix import CELLS, MUTANTS, Matrix
from tests.chaos.mutants import FOUND
from tests.chaos.report import report

# Cells mostly wait, for leases to run out and for processes to start.
LANES_PER_PROCESSOR = 5


@click.command()
@click.option("--only", multiple=True, help="Cells whose names hold this; may be given several times.")
@click.option(
    "--lanes", default=LANES_PER_PROCESSOR * (os.cpu_count() or 1), show_default=True, help="Cells at a time."
)
@click.option("--keep", type=click.Path(path_type=Path), help="Where to leave the evidence, that of held cells too.")
@click.option("--mutants", is_flag=True, help="Play the defects, each in the cell that must show it.")
def main(only: tuple[str, ...], lanes: int, keep: Path | None, *, mutants: bool) -> None:
    """Play the matrix and report on it."""
    cells = [cell for cell in (MUTANTS if mutants else CELLS) if not only or any(part in cell.name for part in only)]
    folder = Path(tempfile.mkdtemp(prefix="crashes-"))
    began = time.monotonic()
    judged = Matrix(folder / "m", on_judged=_say).play(cells, lanes=lanes)
    _keep_evidence(judged, folder, keep)
    click.echo(f"\n{report(judged, seconds=time.monotonic() - began)}")
    if mutants:
        escaped = [each.cell.name for each in judged if not each.breaks(FOUND[str(each.cell.mutant)].invariant)]
        click.echo(f"\nnot found: {', '.join(escaped) or 'none'}")
        sys.exit(1 if escaped else 0)
    verdicts = {each.verdict for each in judged}
    sys.exit(1 if "broken" in verdicts else 2 if "inconclusive" in verdicts or not judged else 0)


def _say(judged: Judged) -> None:
    if sys.stderr.isatty() or judged.verdict != "held":
        click.echo(f"{judged.verdict:12} {judged.cell.name} {judged.took:.1f} s", err=True)


def _keep_evidence(judged: list[Judged], folder: Path, keep: Path | None) -> None:
    """Leave the folders of what did not hold, or all of them elsewhere; remove the servers' data."""
    for each in judged:
        if keep is not None:
            each.folder = Path(shutil.copytree(each.folder, keep / each.cell.name, dirs_exist_ok=True))
        elif each.verdict == "held":
            shutil.rmtree(each.folder, ignore_errors=True)
    for path in (folder / "m").iterdir():
        if path.name != "evidence":
            shutil.rmtree(path, ignore_errors=True)
    if keep is not None or all(each.verdict == "held" or each.cell.mutant for each in judged):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

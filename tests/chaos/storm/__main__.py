"""A seeded storm of faults at real processes, and the checker's word on what came of it.

    python -m tests.chaos.storm [--size slice|release] [--seed N] [--jobs N] [--faults N] [--kinds A,B] [--minutes M]
                                [--replay FOLDER] [--keep FOLDER]

Exits with 0 where every promise was kept and every figure is as it is to be, with 1 where one is broken or a process
only grew, with 2 where too few faults were felt or something had nothing to judge, and with 3 where the evidence cannot
be read. What did not hold leaves its folder, its report within, which it names; `--replay` has the same faults again.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click

from tests.chaos.checker.__main__ import UNREADABLE, judge_folder
from tests.chaos.report.__main__ import STATUS, write_report
from tests.chaos.storm import figures, plan
from tests.chaos.storm.asks_world import RUN
from tests.chaos.storm.plan import Plan
from tests.chaos.storm.run import Storm
from tests.chaos.storm.sampler import FILE as SAMPLES
from tests.chaos.storm.sizes import SIZES


@click.command()
@click.option("--size", type=click.Choice(list(SIZES)), default="slice", show_default=True)
@click.option("--seed", default=1, show_default=True, help="The same one gives the same storm.")
@click.option("--jobs", type=int, help="How many are accepted at least.")
@click.option("--faults", type=int, help="How many there are.")
@click.option("--kinds", help="Of which kinds, with commas; all by default.")
@click.option("--minutes", type=float, help="How long the load goes on at most.")
@click.option("--replay", type=click.Path(path_type=Path, exists=True), help="Have the storm of this folder again.")
@click.option("--keep", type=click.Path(path_type=Path), help="Where to leave the evidence, whatever came of it.")
def main(
    size: str,
    seed: int,
    jobs: int | None,
    faults: int | None,
    kinds: str | None,
    minutes: float | None,
    replay: Path | None,
    keep: Path | None,
) -> None:
    """Have a storm and report on it."""
    given = {"jobs": jobs, "faults": faults, "minutes": minutes}
    chosen = replace(SIZES[size], **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    drawn = (
        plan.read(replay) if replay is not None else plan.draw(size, chosen, seed, kinds.split(",") if kinds else None)
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that all of it ends, and is unmounted
    home = Path(tempfile.mkdtemp(prefix="storm-"))
    folder = home / RUN
    folder.mkdir()
    plan.write(folder, drawn)
    status = UNREADABLE
    try:
        status = _rage(home, folder, drawn)
    finally:  # whatever ends it: what it left so far, and what has it again, are there
        _leave(home, folder, keep, held=status == 0)
    sys.exit(status)


def _rage(home: Path, folder: Path, drawn: Plan) -> int:
    for line in plan.told(drawn):
        click.echo(line)
    began = time.monotonic()
    raged = Storm(home, drawn.size, drawn.seed, drawn.schedule, drawn.quotas, drawn.thorough, say=_say).rage()
    _, evidence = judge_folder(folder)
    if evidence is None:
        return UNREADABLE
    samples = [json.loads(line) for line in (folder / SAMPLES).read_text().splitlines()]
    found = figures.figures_of(evidence, samples, raged.phases, size=drawn.size, stuck=raged.stuck)
    figures.write(folder, found)
    for name, figure in found.items():
        verdict = "" if figure.held is None else "  held" if figure.held else "  NOT HELD"
        target = "" if figure.target is None else f"  ({figure.target})"
        click.echo(f"{name:28} {figure.value} {figure.unit}{target}{verdict}")
    report = write_report(folder, folder)
    for oddity in report["oddities"]:
        click.echo(f"odd: {oddity}")
    click.echo(f"{report['verdict']}, as report.html says; {time.monotonic() - began:.0f} s in all")
    for why in report["why"]:
        click.echo(f"  {why}")
    return STATUS[report["verdict"]]


def _say(words: str) -> None:
    click.echo(words, err=True)


def _leave(home: Path, folder: Path, keep: Path | None, *, held: bool) -> None:
    """Leave the evidence where it is asked for, or where something did not hold; nothing else."""
    if keep is not None:
        shutil.copytree(folder, keep, dirs_exist_ok=True)
        click.echo(f"evidence: {keep}")
    elif not held:
        click.echo(f"evidence: {folder}")
    for each in home.iterdir():
        if held or keep is not None or each != folder:
            shutil.rmtree(each, ignore_errors=True)
    if held or keep is not None:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()

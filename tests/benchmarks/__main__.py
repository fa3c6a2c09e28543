"""`make bench`: measure, print, and write docs/benchmarks.md."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

import click

from tests.benchmarks import machine
from tests.benchmarks.figures import Plan
from tests.benchmarks.report import Run, page, prose_of
from tests.benchmarks.rounds import SECTIONS, play
from tests.benchmarks.stage import Ground, prepare
from tests.benchmarks.steps import time_steps
from tests.houses import ROOT
from worker.dev.servers import servers
from worker.log import configure

PAGE = ROOT / "docs" / "benchmarks.md"
# On the checkout's own disk: a temporary folder may be memory, where waiting for the disk costs nothing.
FOLDER = ROOT / ".surefoot"
STEPS = "steps"
STEPPED_JOBS = 300
MEASURES = (*SECTIONS, STEPS)
# Two hundred waits: of a hundred, p99 is the second slowest, and hardly the same twice.
DEFAULT = Plan(rounds=5, jobs=2_000, waits=200, ledger=5_000_000)
QUICK = Plan(rounds=1, jobs=200, waits=10, ledger=50_000)


@click.command()
@click.option(
    "--rounds", default=DEFAULT.rounds, type=click.IntRange(1), show_default=True, help="How often each peer plays."
)
@click.option(
    "--jobs",
    default=DEFAULT.jobs,
    type=click.IntRange(100),
    show_default=True,
    help="Jobs worked off in a round; five times as many by batch rings.",
)
@click.option(
    "--waits",
    default=DEFAULT.waits,
    type=click.IntRange(1),
    show_default=True,
    help="Results waited for in a round, at ten a second.",
)
@click.option(
    "--ledger",
    default=DEFAULT.ledger,
    type=click.IntRange(1),
    show_default=True,
    help="Finished jobs in the full ledger; 1.2 KiB each.",
)
@click.option("--only", multiple=True, type=click.Choice(MEASURES), help="Measure this alone, and write no page.")
@click.option("--quick", is_flag=True, help="One small round: to see that all runs, not to learn anything.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="The page to write.")
def main(
    rounds: int, jobs: int, waits: int, ledger: int, only: tuple[str, ...], output: Path | None, *, quick: bool
) -> None:
    """Measure Surefoot beside bare Celery, and write docs/benchmarks.md."""
    configure("auto", "warning")  # of what parts of Surefoot have to say that run in this process
    plan = QUICK if quick else Plan(rounds=rounds, jobs=jobs, waits=waits, ledger=ledger)
    written = output or (None if only else PAGE)
    run = _measure(plan, only or MEASURES)
    text = page(run, prose=prose_of(written.read_text()) if written and written.exists() else None)
    click.echo(f"\n{text}")
    if written:
        written.parent.mkdir(exist_ok=True)
        written.write_text(text)
        click.echo(f"{written.name} is written.")


def _measure(plan: Plan, only: Collection[str]) -> Run:
    began = time.monotonic()
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=FOLDER) as made:
        folder = Path(made)
        with servers(folder, log=lambda line: click.echo(line, err=True)) as running:
            prepare(running)
            ground = Ground(running, folder)
            with ground.stage() as stage:
                looked = machine.look(stage)
            steps = []
            if STEPS in only:
                # First: what has changed under them shows in seconds, not after all the rounds.
                with ground.stage() as stage:
                    steps = time_steps(stage, min(plan.jobs, STEPPED_JOBS))
            figures = play(ground, plan, only, lambda line: click.echo(line, err=True))
    return Run(
        machine=looked,
        plan=plan,
        measured=only,
        figures=figures,
        steps=steps,
        command=_command(plan, only),
        day=datetime.now(UTC).date(),
        minutes=(time.monotonic() - began) / 60,
    )


def _command(plan: Plan, only: Collection[str]) -> str:
    sizes = f"--rounds {plan.rounds} --jobs {plan.jobs} --waits {plan.waits} --ledger {plan.ledger}"
    names = "".join(f" --only {name}" for name in only) if only is not MEASURES else ""
    return f'make bench ARGS="{sizes}{names}"'


if __name__ == "__main__":
    main()

"""`make bench`: measure, print, and write docs/benchmarks.md."""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from tests.benchmarks import machine
from tests.benchmarks.report import Run, page, prose_of
from tests.benchmarks.rounds import Plan, play
from tests.benchmarks.stage import prepare, stage
from tests.benchmarks.steps import time_steps
from tests.houses import ROOT
from worker.dev.servers import servers

PAGE = ROOT / "docs" / "benchmarks.md"
# On the checkout's own disk: a temporary folder may be memory, where waiting for the disk costs nothing.
FOLDER = ROOT / ".surefoot"
STEPPED_JOBS = 300


@click.command()
@click.option("--rounds", default=5, type=click.IntRange(1), show_default=True, help="How often each peer plays.")
@click.option(
    "--jobs",
    default=1500,
    type=click.IntRange(100),
    show_default=True,
    help="Jobs that each worker works off in a round.",
)
@click.option(
    "--waits",
    default=100,
    type=click.IntRange(1),
    show_default=True,
    help="Results waited for in a round, at ten a second.",
)
@click.option("--quick", is_flag=True, help="One small round: to see that all runs, not to learn anything.")
@click.option("--output", default=PAGE, type=click.Path(dir_okay=False, path_type=Path), help="The page to write.")
def main(rounds: int, jobs: int, waits: int, output: Path, *, quick: bool) -> None:
    """Measure Surefoot beside bare Celery, and write docs/benchmarks.md."""
    plan = Plan(rounds=1, jobs=200, waits=20) if quick else Plan(rounds=rounds, jobs=jobs, waits=waits)
    run = _measure(plan)
    text = page(run, prose=prose_of(output.read_text()) if output.exists() else None)
    output.parent.mkdir(exist_ok=True)
    output.write_text(text)
    click.echo(f"\n{text}\n{output.name} is written.")


def _measure(plan: Plan) -> Run:
    began = time.monotonic()
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=FOLDER) as made:
        folder = Path(made)
        with servers(folder, log=lambda line: click.echo(line, err=True)) as running:
            prepare(running)
            with stage(running, folder) as fresh:
                looked = machine.look(fresh)
            # First: what has changed under them shows in seconds, not after all the rounds.
            with stage(running, folder) as fresh:
                steps = time_steps(fresh, min(plan.jobs, STEPPED_JOBS))
            figures = play(running, folder, plan, lambda line: click.echo(line, err=True))
    return Run(
        machine=looked,
        plan=plan,
        figures=figures,
        steps=steps,
        command=f'make bench ARGS="--rounds {plan.rounds} --jobs {plan.jobs} --waits {plan.waits}"',
        day=datetime.now(UTC).date(),
        minutes=(time.monotonic() - began) / 60,
    )


if __name__ == "__main__":
    main()

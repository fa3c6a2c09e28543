"""``surefoot-worker``: runs workers, checks what they stand on, and shows the whole thing on this machine."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import click

from producer import render
from producer.errors import SurefootError
from producer.ledger.engine import open_engine
from tasks import declared_schedules, load
from worker.check import findings
from worker.declare import publish_schedules
from worker.lifecycle import publish
from worker.settings import WorkerSettings
from worker.start import POOL_ENVIRONMENT, worker_command

REFUSED = 2
MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "error": "[bold red]error[/]"}


def _speaking_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except SurefootError as error:
            click.echo(f"surefoot-worker: {error}", err=True)
            sys.exit(REFUSED)

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run workers, and see what they stand on.

    Settings are read from the environment; docs/reference.md lists them.
    """


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
def start(celery_options: tuple[str, ...]) -> None:
    """Become `celery -A worker.app worker` with the asyncio pool, and with any of Celery's options.

    `--pool prefork` gives each job a process to itself, for what keeps a processor busy; `--pool threads` a thread.
    """
    command = worker_command(celery_options)
    # The same process, so that signals reach Celery.
    os.execve(sys.executable, command, os.environ | POOL_ENVIRONMENT)  # noqa: S606


@main.command()
@_speaking_errors
def check() -> None:
    """Say what this worker would stand on; exits with 1 where it could not work."""
    console = render.console()
    worst = "ok"
    for finding in findings(WorkerSettings.from_env()):
        console.print(f"{MARKS[finding.level]:>9}", end="  ")
        console.print(finding.what, markup=False)
        worst = "error" if "error" in (worst, finding.level) else finding.level if worst == "ok" else worst
    sys.exit(1 if worst == "error" else 0)


@main.command("publish")
@_speaking_errors
def publish_command() -> None:
    """Tell producers of this worker's actions, and have its schedules ticked, without starting it."""
    settings = WorkerSettings.from_env()
    actions = list(load(settings.action_modules).values())
    with open_engine(settings.database_url, connections=1, name="surefoot-publish").connect() as connection:
        publish(connection, actions)
        publish_schedules(
            connection, declared_schedules().values(), tenant=settings.tenant, imported=sys.modules.keys()
        )
    click.echo(f"published {', '.join(sorted(spec.name for spec in actions))}")


@main.command()
@_speaking_errors
def dev() -> None:
    """Run Postgres and Valkey on this machine, with the demo's data, until Ctrl-C."""
    from worker.dev.stage import FOLDER, stage  # noqa: PLC0415  needs the dev extra

    with stage(FOLDER / "demo", log=click.echo) as on, _environment_file(on.folder / "env", on.environment) as file:
        click.echo(f"\nUp. In other terminals, here:\n\n  source .venv/bin/activate && source {file}\n")
        click.echo("then: surefoot-worker check, surefoot-worker start, surefoot jobs. Ctrl-C ends the servers.")
        try:
            on.servers.until_one_ends()
        except KeyboardInterrupt:
            click.echo()


@contextmanager
def _environment_file(path: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """Write what a shell has to know for as long as it is true; for its owner only, since it holds passwords."""
    path.touch(mode=0o600)
    path.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@main.command()
@click.option("--tickets", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Tickets of your own.")
@click.option("--seed", default=7, show_default=True, help="Of the injected faults.")
@click.option("--faults/--no-faults", default=True, show_default=True)
@click.option("--stay", is_flag=True, help="Keep everything up at the end, Flower included, until Ctrl-C.")
@_speaking_errors
def demo(tickets: Path | None, seed: int, faults: bool, stay: bool) -> None:  # noqa: FBT001  by name
    """Have a support desk work through its tickets while services fail around it."""
    from worker.dev.demo import run_demo  # noqa: PLC0415  needs the dev extra
    from worker.dev.standins import TICKETS  # noqa: PLC0415  needs the dev extra

    try:
        sys.exit(run_demo(tickets or TICKETS, seed=seed, faults=faults, stay=stay))
    except ValueError as error:
        click.echo(f"surefoot-worker: {error}", err=True)
        sys.exit(REFUSED)


@main.command()
@click.option("--failures", type=click.IntRange(0, 10), default=2, show_default=True, help="Attempts that fail.")
@click.option("--key", help="The job's idempotency key; one is made up otherwise.")
@_speaking_errors
def simulate(failures: int, key: str | None) -> None:
    """Show one job failing and succeeding, event by event."""
    from worker.dev.simulate import run_simulation  # noqa: PLC0415  needs the dev extra

    sys.exit(run_simulation(failures, key=key))

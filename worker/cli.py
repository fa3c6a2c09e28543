"""``surefoot-worker``: runs workers, checks what they stand on, and shows the whole thing on this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

import click

from producer import render
from producer.errors import SettingsError, SurefootError
from producer.ledger.engine import open_engine
from tasks import declared_budgets, declared_rules, declared_schedules, load
from worker.check import findings
from worker.declare import publish_budgets, publish_schedules
from worker.flower import PASSWORD_FILE, flower_command
from worker.lifecycle import publish
from worker.log import configure
from worker.policy_cli import policy
from worker.published import publish_policies
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


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("flower_options", nargs=-1, type=click.UNPROCESSED)
@_speaking_errors
def flower(flower_options: tuple[str, ...]) -> None:
    """Become Flower: behind a password (`FLOWER_BASIC_AUTH=user:password`), read-only, with any of its options."""
    command, told = flower_command(os.environ)
    os.environ.pop(PASSWORD_FILE, None)  # Flower knows no variable of that name, and ends where there is one
    os.execve(sys.executable, [*command, *flower_options], os.environ | told)  # noqa: S606  the same process


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


@main.command("watch")
@_speaking_errors
def watch_command() -> None:
    """Tell by `SUREFOOT_ALERT_URLS` what goes wrong, that no worker is alive, too, until SIGTERM or Ctrl-C."""
    from worker.watch import watch  # noqa: PLC0415  Apprise takes half a second

    settings = _with_alerts()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    configure(settings.log, settings.log_level)
    watch(settings, stopping)


@main.command("alert-test")
@_speaking_errors
def alert_test() -> None:
    """Send an alert to each of `SUREFOOT_ALERT_URLS`; exits with 1 where one did not take it."""
    from worker.alert_channels import addresses, send  # noqa: PLC0415  as above
    from worker.alert_words import of_test  # noqa: PLC0415  as above

    failed = False
    for address in addresses(_with_alerts().alert_urls):
        error = send(address, of_test(datetime.now(UTC)))
        failed = failed or error is not None
        click.echo(f"{'ok' if error is None else 'failed':<8}{address.name}{'' if error is None else f': {error}'}")
    sys.exit(1 if failed else 0)


def _with_alerts() -> WorkerSettings:
    settings = WorkerSettings.from_env()
    if not settings.alert_urls:
        raise SettingsError("SUREFOOT_ALERT_URLS is not set; give it URLs as Apprise writes them, such as slack://…")
    for error in settings.errors():
        raise SettingsError(error)
    return settings


@main.command("publish")
@_speaking_errors
def publish_command() -> None:
    """Publish this worker's actions, policies, budgets and schedules without starting it."""
    settings = WorkerSettings.from_env()
    actions = list(load(settings.action_modules).values())
    with open_engine(settings.database_url, connections=1, name="surefoot-publish").connect() as connection:
        publish_policies(connection, declared_rules().values())
        publish(connection, actions)
        publish_budgets(connection, declared_budgets().values())
        publish_schedules(
            connection, declared_schedules().values(), tenant=settings.tenant, imported=sys.modules.keys()
        )
    click.echo(f"published {', '.join(sorted(spec.name for spec in actions))}")


main.add_command(policy)


@main.command()
@_speaking_errors
def dev() -> None:
    """Run Postgres and Valkey on this machine, with the demo's data, until Ctrl-C."""
    from worker.dev.stage import FOLDER, environment_file, stage  # noqa: PLC0415  needs the dev extra

    with stage(FOLDER / "demo", log=click.echo) as on, environment_file(on.folder / "env", on.environment) as file:
        click.echo(f"\nUp. In other terminals, here:\n\n  source .venv/bin/activate && source {file}\n")
        click.echo("then: surefoot-worker check, surefoot-worker start, surefoot jobs. Ctrl-C ends the servers.")
        try:
            on.servers.until_one_ends()
        except KeyboardInterrupt:
            click.echo()


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
@click.argument("scenarios", nargs=-1)
@click.option("--failures", type=click.IntRange(0, 10), default=2, show_default=True, help="Attempts that fail.")
@click.option("--key", help="The job's idempotency key; one is made up otherwise.")
@_speaking_errors
def simulate(scenarios: tuple[str, ...], failures: int, key: str | None) -> None:
    """Show one job failing and succeeding, event by event; or what SCENARIOS name, or all of them.

    \b
    llm-timeout    a model that does not answer in time is asked again
    repeat         one key is one effect, whoever asks twice and whatever answer is lost
    rate-limit     a server that asks for patience is given it, and no attempt is spent
    slow-database  a database that keeps everybody waiting costs time, and nothing else
    changed-api    an answer in another shape is refused in words, and not passed on
    breaker        a service that is down is left alone, a fallback stands in, and it is tried again
    approval       what a policy denies is not done, and what needs a person waits for one
    all            each of these
    """  # noqa: D301  click's own mark, which keeps the lines as they are
    from worker.dev.scenarios import SCENARIOS  # noqa: PLC0415  needs the dev extra
    from worker.dev.simulate import run_scenarios, run_simulation  # noqa: PLC0415  needs the dev extra

    if not scenarios:
        sys.exit(run_simulation(failures, key=key))
    names = list(SCENARIOS) if "all" in scenarios else list(scenarios)
    if unknown := [name for name in names if name not in SCENARIOS]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(SCENARIOS)}, all", param_hint="SCENARIOS")
    sys.exit(run_scenarios(names))

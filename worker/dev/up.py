"""``surefoot up``: all of it on this machine, in one terminal, for as long as that is open."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import click

from producer.cli.speaking import speaking_errors
from producer.keys import SCOPES
from worker.dev.stage import FOLDER, Part, Stage, StageError, api, environment_file, flower, stage, worker

API_PORT, FLOWER_PORT = 8100, 5555


@click.command()
@click.option("--actions", default="", help="Modules with actions of yours, separated by commas; found from here.")
@click.option("--concurrency", default=50, show_default=True, help="Jobs at a time.")
@click.option("--port", default=API_PORT, show_default=True, help="Of API and console; another where it is taken.")
@speaking_errors
def up(actions: str, concurrency: int, port: int) -> None:
    """Run it all here until Ctrl-C: Postgres, Valkey, a worker, the API with its console, Flower."""
    with (
        stage(FOLDER / "demo", log=click.echo) as on,
        worker(on, concurrency=concurrency, environment=_with_actions(actions)) as performing,
        flower(on, port=FLOWER_PORT) as watching,
    ):
        key = _key(on)
        told = {"SUREFOOT_CONSOLE_SECRET": key, "SUREFOOT_CONSOLE_FLOWER_URL": watching.address}
        with (
            api(on, port=port, environment=told) as serving,
            environment_file(on.folder / "env", {**on.environment, **_of_clients(serving, key)}) as file,
        ):
            parts = {"the worker": performing, "the API": serving, "Flower": watching}
            click.echo("starting a worker, the API, Flower")
            for part in parts.values():
                part.wait()
            click.echo(_addresses(on, serving, watching, performing, key, file))
            with suppress(KeyboardInterrupt):
                on.servers.until_one_ends(lambda: _none_has_ended(parts))
            click.echo("\nstopping; the worker ends what it has begun")


def _with_actions(modules: str) -> dict[str, str]:
    """Return what a worker has to be told to have somebody's actions: it works in another folder than he does."""
    modules = modules or os.environ.get("SUREFOOT_ACTION_MODULES", "")
    paths = [str(Path.cwd()), *(str(Path(each).absolute()) for each in _paths())]
    return {"SUREFOOT_ACTION_MODULES": modules, "PYTHONPATH": os.pathsep.join(paths)} if modules else {}


def _paths() -> list[str]:
    return [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]


def _key(on: Stage) -> str:
    """Return a key for everything; the same at each start for as long as it is good, so that a browser may keep it."""
    path = on.folder / "key"
    with suppress(FileNotFoundError):
        kept = path.read_text().strip()
        if on.producer.keys.identify(kept) is not None:
            return kept
    _, key = on.producer.keys.create(f"surefoot up {secrets.token_hex(2)}", SCOPES, rate_per_second=10_000)
    path.touch(mode=0o600)
    path.write_text(f"{key}\n")
    return key


def _of_clients(serving: Part, key: str) -> Mapping[str, str]:
    return {"SUREFOOT_API_URL": serving.address, "SUREFOOT_API_KEY": key}


def _addresses(on: Stage, serving: Part, watching: Part, performing: Part, key: str, file: Path) -> str:
    return f"""
Up.

  Console   {serving.address}/console
            sign in with {key}
  API       {serving.address}
  Flower    {watching.address}
  Logs      {performing.log}, {serving.log.name}, {watching.log.name}
  Data      {on.folder}; remove it to begin anew

In other terminals, here:

  source .venv/bin/activate && source {file}
  surefoot enqueue http.request '{{"method": "GET", "url": "{serving.address}/livez"}}' --wait 10

Ctrl-C ends all of it."""


def _none_has_ended(parts: Mapping[str, Part]) -> None:
    """Raise StageError where one does not run any more: half of it would only look as if it worked."""
    for name, part in parts.items():
        if part.has_ended:
            raise StageError(f"{name} has ended; its log ends:\n{part.tail()}")

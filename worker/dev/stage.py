"""A whole deployment on this machine for as long as a block runs: servers, schema, a worker, Flower if asked for."""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from producer import Producer
from producer.errors import SurefootError
from producer.ledger.engine import open_engine
from producer.ledger.migrate import migrate
from worker.dev.servers import Servers, servers
from worker.settings import WorkerSettings
from worker.start import POOL_ENVIRONMENT, worker_command

FOLDER = Path(".surefoot")
START_SECONDS = 60.0
STOP_SECONDS = 40.0
TAIL_LINES = 15
PROJECT = Path(__file__).parent.parent.parent


class StageError(SurefootError):
    """A part of the stage did not come up."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs, and how to reach it.

    Attributes:
        environment: What a process needs in its environment to take part.
        producer: Connected to it.
        folder: Where logs and data lie.
    """

    servers: Servers
    environment: Mapping[str, str]
    producer: Producer
    folder: Path


@contextmanager
def stage(folder: Path = FOLDER, *, log: Callable[[str], None] | None = None) -> Iterator[Stage]:
    """Start the servers, or come back to their data, and bring the schema up to date.

    Args:
        folder: Kept between runs; git ignores the default.
        log: Told what is being done, for somebody who waits.
    """
    with servers(folder, log=log) as running:
        engine = open_engine(running.database_url, connections=1, name="surefoot-stage")
        migrate(engine)
        engine.dispose()
        urls = {"SUREFOOT_DATABASE_URL": running.database_url, "SUREFOOT_REDIS_URL": running.redis_url}
        producer = Producer(WorkerSettings.from_env({**os.environ, **urls}))
        try:
            yield Stage(running, urls, producer, folder)
        finally:
            producer.close()


@contextmanager
def environment_file(path: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """Write what a shell has to know for as long as it is true; for its owner only, since it holds passwords."""
    path.touch(mode=0o600)
    path.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Part:
    """A process that has been started. Several come up at once where each is waited for after all were started.

    Attributes:
        log: What it writes.
        address: Where it answers; empty for a worker.
    """

    log: Path
    address: str
    _process: subprocess.Popen[bytes]
    _answers: Callable[[], bool]

    @property
    def has_ended(self) -> bool:
        """Whether it does not run any more, whoever ended it."""
        return self._process.poll() is not None

    def tail(self) -> str:
        """Return the end of what it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:])

    def wait(self) -> None:
        """Return once it does its work.

        Raises:
            StageError: If it does not come up, with the end of its log.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.has_ended or time.monotonic() > deadline:
                raise StageError(f"{self.log.name} did not come up; its log ends:\n{self.tail()}")
            time.sleep(0.05)


@contextmanager
def worker(on: Stage, *, concurrency: int, environment: Mapping[str, str]) -> Iterator[Part]:
    """Run a Celery worker until the block ends."""
    path = on.folder / "worker.log"
    command = worker_command(["--concurrency", str(concurrency)])
    with _process(command, on, path, {"SUREFOOT_LOG": "json", **POOL_ENVIRONMENT, **environment}) as process:
        yield Part(path, "", process, lambda: "worker.started" in path.read_text(errors="replace"))


@contextmanager
def api(on: Stage, *, port: int, environment: Mapping[str, str]) -> Iterator[Part]:
    """Run the HTTP API and its console until the block ends, on a port, or on another where that is taken."""
    path, port = on.folder / "api.log", _free_port(port)
    command = [sys.executable, "-c", "from producer.cli import main; main()", "api"]
    with _process(command, on, path, {"SUREFOOT_API_PORT": str(port), **environment}) as process:
        address = f"http://127.0.0.1:{port}"
        yield Part(path, address, process, lambda: _answers(f"{address}/readyz"))


@contextmanager
def flower(on: Stage, *, port: int = 0) -> Iterator[Part]:
    """Run Flower until the block ends; its address has user and password in it."""
    password, port = secrets.token_urlsafe(9), _free_port(port)
    options = ["--address=127.0.0.1", f"--port={port}", "--logging=warning"]
    command = [sys.executable, "-m", "celery", "-A", "worker.app", "flower", *options]
    path = on.folder / "flower.log"
    # The password goes through the environment: a command line is for all to see.
    with _process(command, on, path, {"FLOWER_BASIC_AUTH": f"demo:{password}"}) as process:
        address = f"http://demo:{password}@127.0.0.1:{port}"
        yield Part(path, address, process, lambda: _answers(f"http://127.0.0.1:{port}/healthcheck"))


@contextmanager
def _process(
    command: Sequence[str], on: Stage, path: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with path.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  our own command
            [sys.executable, "-m", "worker.dev._lifeline", *command],
            stdin=subprocess.PIPE,  # the lifeline: it breaks when this process dies, however it does
            cwd=PROJECT,  # where celeryconfig.py lies
            env={**os.environ, **on.environment, **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,  # a terminal's Ctrl-C is ours to pass on, once the work is done
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its own session: nothing else is in that group
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2):  # noqa: S310  our own address
            return True
    except (URLError, OSError):
        return False


def _free_port(wanted: int = 0) -> int:
    """Return a port of this machine's own that is free: that one, or any."""
    for port in (wanted, 0):
        with socket.socket() as probe, suppress(OSError):
            # As servers do: a connection of an earlier one, on its way out, holds no port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise StageError("this machine has no free port")

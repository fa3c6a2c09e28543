"""Real servers for development, the demo and the tests: Postgres 18 and Valkey 9, from wheels.

    with servers(Path(".surefoot")) as running:
        run_migrations(running.database_url)

Everything lives in the folder: data, logs, ports, passwords. Nothing is left running and nothing left behind stops
the next start, however this process ends (see `_keeper.py`). The folder holds ``postgres/`` and ``valkey/``, each
with ``data/ log lock password port token``; removing it is the way to begin anew.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from worker.dev import _processes
from worker.dev._errors import FolderInUse, NotStarted, ServerFailed, ServerMissing, ServersError
from worker.dev._postgres import Postgres
from worker.dev._server import LOG_TAIL_LINES
from worker.dev._valkey import Valkey

__all__ = [
    "FolderInUse",
    "NotStarted",
    "Postgres",
    "ServerFailed",
    "ServerMissing",
    "Servers",
    "ServersError",
    "Valkey",
    "servers",
]

LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Servers:
    """Both servers, running.

    Attributes:
        database_url: SQLAlchemy's form, of the database ``surefoot``; empty on the first start, kept afterwards.
        redis_url: ``redis://:password@127.0.0.1:PORT/0``.
        postgres_pid: The postmaster.
        redis_pid: The Valkey server.
        folder: Where their data lies.
    """

    database_url: str
    redis_url: str
    postgres_pid: int
    redis_pid: int
    folder: Path

    def until_one_ends(self, meanwhile: Callable[[], None] = lambda: None) -> NoReturn:
        """Block for as long as both run, looking twice a second; `meanwhile` is called at each look.

        Raises:
            ServerFailed: If one of them has ended, whoever ended it.
        """
        runs = {
            name: _processes.handle(pid) for name, pid in (("Postgres", self.postgres_pid), ("Valkey", self.redis_pid))
        }
        while True:
            for name, process in runs.items():
                if process is None or not _processes.goes_on(process):
                    log = self.folder / name.lower() / "log"
                    tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
                    raise ServerFailed(name, "has ended", log, tail)
            meanwhile()
            time.sleep(LOOK_SECONDS)


@contextmanager
def servers(folder: Path, *, log: Callable[[str], None] | None = None) -> Iterator[Servers]:
    """Run Postgres and Valkey with their data in `folder`, and stop both cleanly at the end of the block.

    The block also ends on SIGTERM, with exit code 143, if this is the main thread and nobody else has a plan
    for that signal. `log` is told each step in a sentence.

    Raises:
        FolderInUse: If another process, or another object in this one, runs servers in `folder`.
        ServerFailed: If one of them ended or did not answer within 60 seconds.
        ServerMissing: If the wheels are not installed.
        ServersError: If `folder` cannot be used.
    """
    postgres, valkey = Postgres(folder, log=log), Valkey(folder, log=log)
    with _ending_on_sigterm(), ExitStack() as ending:
        # Run from the last to the first: both are asked before either is waited for.
        ending.callback(postgres.stop)
        ending.callback(valkey.stop)
        ending.callback(postgres.ask_to_stop)
        # Valkey comes up while Postgres is waited for.
        valkey.launch()
        postgres.start()
        valkey.wait_ready()
        yield Servers(postgres.url, valkey.url, postgres.pid, valkey.pid, postgres.folder)


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, which unwinds; restores what was there before."""
    # Signals reach Python's main thread only; and whoever installed a handler, or ignores the signal, meant it.
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(signum: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)  # as a shell reports it

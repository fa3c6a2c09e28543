"""The processes of a lane: workers as they are deployed, and askers; each with its log and a group of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.patience import NotReached, until
from tests.houses import ROOT
from worker.start import POOL_ENVIRONMENT, worker_command

START_SECONDS = 60.0
STOP_SECONDS = 20.0


@dataclass(slots=True, eq=False)
class Member:
    """One process of the lane, with those that it started.

    Attributes:
        name: In the faults, and of its log.
        began_at: Where in the log the present cell begins.
        stopped: While it is suspended.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    began_at: int = 0
    stopped: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    @property
    def children(self) -> list[psutil.Process]:
        """The processes that it has started and that live; none where it has ended itself."""
        try:
            return psutil.Process(self.pid).children()
        except psutil.NoSuchProcess:
            return []

    @property
    def family(self) -> list[psutil.Process]:
        """The living processes of its group."""
        found: list[psutil.Process] = []
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return found
        for process in psutil.process_iter():
            with suppress(ProcessLookupError, psutil.Error):
                if os.getpgid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def signal_group(self, signum: signal.Signals) -> None:
        """Send a signal to the process and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signum)

    def end(self) -> None:
        """End it at once, with all that it started."""
        self.signal_group(signal.SIGKILL)
        self.process.wait(STOP_SECONDS)
        self.hang_up()

    def hang_up(self) -> None:
        """Close our ends of its pipes."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was written and not read by one that is dead
                    pipe.close()

    def said(self, event: str) -> bool:
        """Whether the log has a line of this event since the present cell began."""
        with self.log.open("rb") as log:
            log.seek(self.began_at)
            return f'"event": "{event}"'.encode() in log.read()


class Worker(Member):
    """One `surefoot-worker start`."""

    def is_ready(self) -> bool:
        """Whether it takes jobs by now.

        Raises:
            NotReached: If it has ended instead.
        """
        if not self.lives:
            raise NotReached(f"{self.name} ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")
        return b'"worker.started"' in self.log.read_bytes()


class Asker(Member):
    """One `tests.chaos.asker`."""

    def order(self, order: Mapping[str, Any]) -> None:
        """Have it ask; the answer comes later, or never."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self, seconds: float) -> dict[str, Any]:
        """Return what it was answered.

        Raises:
            NotReached: If it has died, or says nothing.
        """
        output = self.process.stdout
        assert output is not None
        if not select.select([output], [], [], seconds)[0]:
            raise NotReached(f"{self.name} has not answered within {seconds:g} s")
        line = output.readline()
        if not line:
            raise NotReached(f"{self.name} died while it asked")
        answered: dict[str, Any] = json.loads(line)
        return answered


def start_worker(name: str, folder: Path, environment: Mapping[str, str], *, prefork: bool) -> Worker:
    """Start a worker; it is ready later.

    The command is what `surefoot-worker start` becomes, without the half second in which it finds that out.
    """
    log = folder / f"{name}.log"
    pool = ("--pool", "prefork", "--concurrency", "1") if prefork else ()
    command = worker_command([*pool, "-n", f"{name}@{folder.name}"])
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment, **POOL_ENVIRONMENT},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return Worker(name, process, log)


def start_asker(name: str, folder: Path, environment: Mapping[str, str]) -> Asker:
    """Start a process that asks."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.asker", name],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )
    return Asker(name, process, log)


class World:
    """The effect server, and what the harness tells it."""

    def __init__(self, folder: Path) -> None:
        """Start it; its files go into `folder`, by run."""
        self._folder = folder
        self._process, self.port = self._start(0)
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process, the last one if it was killed."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL it, in the midst of whatever it does."""
        self._process.kill()
        self._hang_up()

    def start_again(self) -> None:
        """Start it anew where it was, with what its files say, after `kill`."""
        self._process, _ = self._start(self.port)

    def weather(self, run: str, weather: Mapping[str, Any]) -> None:
        """Say what becomes of the run's requests from now on; see `Weather`."""
        self._order(run, {"do": "weather", "weather": dict(weather)})

    def met(self, run: str) -> Mapping[str, int]:
        """Return how many requests of the run met which fate since the process began."""
        found: dict[str, int] = self._order(run, {"do": "look"})["met"]
        return found

    def plan(self, run: str, *, hold: str | None, drop: bool) -> None:
        """Say what becomes of the run's next request."""
        self._order(run, {"do": "plan", "hold": hold, "drop": drop})

    def held(self, run: str, seconds: float) -> int:
        """Wait for a request that is held; return the process that sent it.

        Raises:
            NotReached: If there is none.
        """
        held = self._order(run, {"do": "held", "seconds": seconds})["held"]
        if held is None:
            raise NotReached(f"no request came in {seconds:g} s")
        return int(held)

    def release(self, run: str) -> None:
        """Let go of a request that is held."""
        self._order(run, {"do": "release"})

    def open_requests(self, run: str) -> int:
        """Return how many requests are not answered yet."""
        return int(self._order(run, {"do": "look"})["open"])

    def look_up(self, run: str, action: str, ref: str) -> Any:
        """Return what a job's effect brought, by the world's books; None where it has not happened."""
        import httpx  # noqa: PLC0415  as below

        found = httpx.get(f"{self.url}/{run}/keyed/{action}", headers={"X-Ref": ref, "X-Token": "desk"}, timeout=10.0)
        return found.raise_for_status().json()["result"]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._hang_up()

    def _start(self, port: int) -> tuple[subprocess.Popen[bytes], int]:
        command = [sys.executable, "-m", "tests.chaos.effect_server", str(self._folder), str(port)]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    def _hang_up(self) -> None:
        self._process.wait(STOP_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _order(self, run: str, order: dict[str, Any]) -> dict[str, Any]:
        import httpx  # noqa: PLC0415  the pytest of other tests need not load it

        answer = httpx.post(f"{self.url}/{run}", json=order, timeout=60.0)
        found: dict[str, Any] = answer.raise_for_status().json()
        return found


def wait_ready(worker: Worker) -> None:
    """Wait until a worker takes jobs.

    Raises:
        NotReached: If it ended instead.
    """
    until(worker.is_ready, seconds=START_SECONDS, what=f"the start of {worker.name}")

"""A peer's worker processes: how they start, get warm, stand still while jobs gather, and end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.benchmarks.clients import Client
from tests.benchmarks.crew import Crew
from tests.benchmarks.ends import Stalled, until_ended
from tests.houses import ROOT
from worker.start import POOL_ENVIRONMENT

START_SECONDS = 30.0
STOP_SECONDS = 20.0
LOOK_SECONDS = 0.05
# Small, so that each of several processes gets its share.
WARM_BURST = 50
WARM_BURSTS = 100


@dataclass(frozen=True, slots=True)
class Workers:
    """A crew at work.

    Attributes:
        processes: One for each worker.
        logs: Theirs, in the same order.
    """

    crew: Crew
    processes: Sequence[subprocess.Popen[bytes]]
    logs: Sequence[Path]

    @property
    def pids(self) -> list[int]:
        """The workers' own; prefork's children are not among them."""
        return [process.pid for process in self.processes]

    def warm(self, client: Client, enqueue: Callable[[int, int], None] | None = None) -> None:
        """Have every process perform a hundred jobs: the first ones pay for imports, connections and plans.

        Args:
            client: Whose jobs.
            enqueue: The way that will be measured: it takes the first job's number, and how many. None is the
                client's own.

        Raises:
            Stalled: If one of them gets none.
        """
        for burst in range(1, WARM_BURSTS + 1):
            if all(client.ended_in(log) >= self.crew.warm_jobs for log in self.logs):
                return
            (enqueue or client.enqueue_all)(-burst * WARM_BURST, WARM_BURST)
            until_ended(client)
        raise Stalled(f"a worker did not get warm:\n{self._end_of_logs()}")

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Suspend all of the workers' processes in the block, so that jobs can gather; they go on at its end."""
        own = [psutil.Process(pid) for pid in self.pids]
        everybody = [*own, *(child for process in own for child in process.children(recursive=True))]
        try:
            for process in everybody:
                process.suspend()
            yield
        finally:
            for process in everybody:
                process.resume()

    def peak_mib(self) -> float:
        """Return the most memory that each worker's own process has held so far, added up."""
        return sum(map(_peak_mib, self.pids))

    def confirm(self, client: Client, jobs: int) -> None:
        """Make sure that so many successes of the client's are on record.

        Raises:
            Stalled: If there are others: the figures would be worth nothing.
        """
        recorded = client.recorded(self.logs)
        if recorded != jobs:
            raise Stalled(f"{recorded} of {jobs} successes are on record:\n{self._end_of_logs()}")

    def check(self) -> None:
        """Make sure that all workers are there.

        Raises:
            Stalled: If one has ended.
        """
        for process in self.processes:
            if process.poll() is not None:
                raise Stalled(f"a worker ended with {process.returncode}:\n{self._end_of_logs()}")

    def await_ready(self) -> None:
        """Wait until each takes jobs.

        Raises:
            Stalled: If one does not.
        """
        deadline = time.monotonic() + START_SECONDS * self.crew.slowness
        while not all(b" ready." in log.read_bytes() for log in self.logs):
            self.check()
            if time.monotonic() > deadline:
                raise Stalled(f"a worker did not start:\n{self._end_of_logs()}")
            time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """End them, and wait for it."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(STOP_SECONDS * self.crew.slowness)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _end_of_logs(self) -> str:
        return "\n".join(log.read_text(errors="replace")[-3000:] for log in self.logs)


@contextmanager
def working(client: Client, crew: Crew) -> Iterator[Workers]:
    """Run a peer's workers, which are ready when the block begins.

    Raises:
        Stalled: If one does not start, or has ended before the block does.
    """
    logs = [client.stage.folder / f"worker-{number}.log" for number in range(crew.processes)]
    workers = Workers(crew, [_start(client, crew.command(client.app, n), log) for n, log in enumerate(logs)], logs)
    try:
        workers.await_ready()
        yield workers
        workers.check()
    finally:
        workers.stop()


def _start(client: Client, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SUREFOOT_", "BARE_"))}
    environment = inherited | POOL_ENVIRONMENT | client.environment()
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))

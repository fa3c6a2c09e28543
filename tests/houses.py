"""Real worker processes for tests, and waiting for conditions instead of for time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import psutil

from producer import Producer, Settings
from producer.ledger.states import AT_REST
from worker.start import POOL_ENVIRONMENT, worker_command

ROOT = Path(__file__).parent.parent
# What `surefoot-worker start` gives Celery; `prefork` and `threads` are its own.
ASYNCIO = "custom"
ACTION_MODULES = (
    "tests.actions",
    "tests.pool_actions",
    "tests.follow_up_actions",
    "tests.conversation_actions",
    "tests.verified_actions",
    "tests.breaker_actions",
    "tests.fallback_actions",
    "tests.classified_actions",
    "tests.repaired_actions",
    "tests.outage_actions",
    "tests.policy_actions",
    "tests.undo_actions",
    "tests.probed_actions",
)
START_SECONDS = 30.0
STOP_SECONDS = 30.0
# What a test may have to wait for a relay round, a lease and a ring on a busy machine.
PATIENCE_SECONDS = 20.0

T = TypeVar("T")


def until(condition: Callable[[], T], *, seconds: float = PATIENCE_SECONDS) -> T:
    """Return the first true value of `condition`, or fail with the last one."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still {value!r} after {seconds} s")
        time.sleep(0.01)
    return value


@dataclass(slots=True)
class WorkerProcess:
    """One `celery worker`, with everything it wrote."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def children(self) -> list[psutil.Process]:
        """The pool's processes."""
        return psutil.Process(self.pid).children()

    def lines(self) -> list[dict[str, Any]]:
        """The log's JSON lines; Celery's banner is not one."""
        text = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in text if line.startswith("{") and line.endswith("}")]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's lines of one event."""
        return [line for line in self.lines() if line.get("event") == name]

    def lines_of(self, job_id: UUID) -> list[dict[str, Any]]:
        """The lines of a job that has ended, waited for: the last of them follows the commit that a reader sees."""

        def told() -> bool:
            settled = self.events("attempt.settled")
            return any(line["job_id"] == str(job_id) and line["state"] in AT_REST for line in settled)

        until(told)
        return [line for line in self.lines() if line.get("job_id") == str(job_id)]

    def kill(self) -> None:
        """End the worker and its pool at once, as a power cut would."""
        victims = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        for victim in victims:
            victim.kill()
        psutil.wait_procs(victims, STOP_SECONDS)
        self.process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """Ask the worker to stop; return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode


@dataclass(frozen=True, slots=True)
class House:
    """A producer and a worker that serve one ledger."""

    producer: Producer
    worker: WorkerProcess
    settings: Settings
    folder: Path


def start_worker(
    settings: Settings,
    log: Path,
    *,
    pool: str = ASYNCIO,
    concurrency: int = 2,
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    folder: Path = ROOT,
) -> WorkerProcess:
    """Start a worker and wait until it has published its actions and takes jobs.

    `options` are Celery's; `folder` is the checkout whose celeryconfig.py it reads.
    """
    command = worker_command(["--pool", pool, "--concurrency", str(concurrency), *options])
    name = f"{log.parent.name}-{os.getpid()}-{time.time_ns()}@%h"
    with log.open("ab") as output:
        process = subprocess.Popen(  # a test's own worker, ended by its fixture
            [*command, "-n", name],
            cwd=folder,
            env=worker_environment(settings) | dict(environment or {}),
            stdout=output,
            stderr=output,
        )
    worker = WorkerProcess(process, log)
    started = len(worker.events("worker.started"))

    def ready() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"the worker ended with {process.returncode}:\n{log.read_text()[-3000:]}")
        return len(worker.events("worker.started")) > started

    try:
        until(ready, seconds=START_SECONDS)
    except AssertionError:
        worker.stop()
        raise
    return worker


def worker_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a worker for tests: JSON logs, short leases, the tests' actions."""
    return os.environ | {
        "SUREFOOT_DATABASE_URL": settings.database_url,
        "SUREFOOT_REDIS_URL": settings.redis_url,
        "SUREFOOT_ACTION_MODULES": ",".join(ACTION_MODULES),
        "SUREFOOT_LOG": "json",
        **POOL_ENVIRONMENT,
        "SUREFOOT_LEASE_SECONDS": "3",
        "SUREFOOT_RENEW_SECONDS": "0.5",
        "SUREFOOT_RELAY_SECONDS": "0.2",
        "PYTHONWARNINGS": "default",
    }


@contextmanager
def house_of(
    settings: Settings,
    folder: Path,
    *,
    pool: str = ASYNCIO,
    concurrency: int = 2,
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> Iterator[House]:
    """Start a worker and a producer, and stop both; see `start_worker`."""
    worker = start_worker(
        settings,
        folder / "worker.log",
        pool=pool,
        concurrency=concurrency,
        environment=environment,
        options=options,
    )
    producer = Producer(settings)
    try:
        yield House(producer, worker, settings, folder)
    finally:
        producer.close()
        worker.stop()

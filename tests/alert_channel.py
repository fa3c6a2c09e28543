"""A channel for alerts to loopback: a real HTTP server that takes Apprise's ``json://``, refuses, or hangs.

And who sends to it: workers, and watchers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from producer import Producer, Settings
from producer.job import Job
from tests.houses import ROOT, WorkerProcess, start_worker, until, worker_environment

QUICK = {"SUREFOOT_ALERT_LOOK_SECONDS": "0.2", "SUREFOOT_ALERT_GROUP_SECONDS": "0.5"}


@dataclass(slots=True)
class ChannelStandIn:
    """What it was sent, and how it answers: ``taken``, ``refused`` or ``hangs``, which a test may change."""

    port: int = 0
    goes: str = "taken"
    asked: int = 0
    taken: list[dict[str, Any]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.port}/s3cr3t-token"

    def titles(self) -> list[str]:
        return [alert["title"].removeprefix("Surefoot: ") for alert in list(self.taken)]

    def of(self, titled: Callable[[str], bool]) -> list[dict[str, Any]]:
        """Return the alerts with such a title."""
        return [alert for alert in list(self.taken) if titled(alert["title"].removeprefix("Surefoot: "))]


@contextmanager
def channel() -> Iterator[ChannelStandIn]:
    """Have one listen while the block runs."""
    stand_in = ChannelStandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            stand_in.asked += 1
            if stand_in.goes == "hangs":
                stand_in.ended.wait()
                return
            if stand_in.goes == "taken":
                stand_in.taken.append(body)
            self.send_response(200 if stand_in.goes == "taken" else 500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stand_in.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        stand_in.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def alerting(*urls: str, **more: str) -> dict[str, str]:
    return QUICK | {"SUREFOOT_ALERT_URLS": ",".join(urls)} | more


@contextmanager
def workers(
    settings: Settings, folder: Path, environment: Mapping[str, str], *, count: int = 1
) -> Iterator[list[WorkerProcess]]:
    """Run workers that alert."""
    started: list[WorkerProcess] = []
    try:
        for number in range(count):
            log = folder / f"worker-{number}.log"
            started.append(start_worker(settings, log, concurrency=20, environment=environment))
        yield started
    finally:
        for worker in started:
            worker.stop()


@contextmanager
def watching(
    settings: Settings, folder: Path, environment: Mapping[str, str], *, name: str = "watch"
) -> Iterator[WorkerProcess]:
    """Run `surefoot-worker watch`."""
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", "from worker.cli import main; main()", "watch"],
            cwd=ROOT,
            env=worker_environment(settings) | dict(environment),
            stdout=output,
            stderr=output,
        )
    watcher = WorkerProcess(process, log)
    try:
        until(lambda: watcher.events("watch.started"))
        yield watcher
    finally:
        watcher.stop()


def ask(producer: Producer, action: str, count: int = 1, **params: Any) -> list[Job]:
    return producer.enqueue_many(
        {"action": action, "params": params, "idempotency_key": f"{action}-{n}"} for n in range(count)
    )

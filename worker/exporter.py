"""What a worker answers over HTTP, where `SUREFOOT_METRICS_ADDRESS` says so: /metrics, /livez and /readyz.

For Prometheus, and for whoever keeps the worker running. It shows no job and no param, takes no password and changes
nothing; it listens where it is told to, and that should be where nobody else's traffic comes by.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from celery import concurrency
from celery.concurrency.prefork import TaskPool as ManyProcesses
from celery.worker import state as worker_state
from prometheus_client import CollectorRegistry, generate_latest

from worker.log import log
from worker.meter import count_with
from worker.metrics import CONTENT_TYPE, Rings, counting_alone, counting_together

# Whoever takes longer to ask is hung up on.
PATIENCE_SECONDS = 5.0

Answer = tuple[HTTPStatus, str, bytes]


def begin_to_count(address: str, *, worker: Any, lives: Callable[[], bool], ready: Callable[[], bool]) -> None:
    """Count what this worker does, and serve it; before its pool starts, whose children count, too.

    A worker whose address is taken by another works all the same, and says so in the log.

    Args:
        address: ``host:port``; port 0 is any that is free, and is logged.
        worker: Celery's, as it is when it starts.
        lives: Whether it makes progress.
        ready: Whether it takes jobs.
    """
    pool = concurrency.get_implementation(worker.pool_cls)
    together = isinstance(pool, type) and issubclass(pool, ManyProcesses)
    counting, text = counting_together() if together else counting_alone()
    count_with(counting)
    own = CollectorRegistry()
    own.register(Rings(lambda: len(worker_state.active_requests), lambda: worker.concurrency))
    answers: dict[str, Callable[[], Answer]] = {
        "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE, text() + generate_latest(own)),
        "/livez": lambda: _yes_or_no(lives()),
        "/readyz": lambda: _yes_or_no(lives() and ready()),
    }
    try:
        _serve(address, answers)
    except OSError as error:
        log.error("metrics.unserved", address=address, error=str(error))


def _yes_or_no(yes: bool) -> Answer:  # noqa: FBT001  it is the question
    status = HTTPStatus.OK if yes else HTTPStatus.SERVICE_UNAVAILABLE
    return status, "text/plain; charset=utf-8", b"yes\n" if yes else b"no\n"


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE_SECONDS
    answers: ClassVar[Mapping[str, Callable[[], Answer]]] = {}

    def do_GET(self) -> None:
        answer = self.answers.get(self.path.partition("?")[0])
        status, kind, body = (HTTPStatus.NOT_FOUND, "text/plain", b"not here\n") if answer is None else answer()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Say nothing of what answers."""
        return "surefoot"

    def log_message(self, *_: Any) -> None:
        """Log nothing: it is a line every few seconds."""


def _serve(address: str, answers: Mapping[str, Callable[[], Answer]]) -> None:
    host, _, port = address.rpartition(":")
    server = _Server((host.strip("[]"), int(port)), type("Handler", (_Handler,), {"answers": answers}))
    # A child that outlived its parent would keep the address from whoever comes after that.
    os.register_at_fork(after_in_child=server.socket.close)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    log.info("metrics.listening", host=server.server_address[0], port=server.server_address[1])

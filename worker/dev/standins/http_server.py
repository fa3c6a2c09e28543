"""One HTTP/1.1 server for both stand-ins: keep-alive, threads, loopback only, and the HTTP faults.

Every answer says in a header that a stand-in gave it. Nothing here knows what the stand-ins are about.
"""

from __future__ import annotations

import json
import socket
import socketserver
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message as EmailHeaders
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from worker.dev.standins.faults import Fault, Faults, Kind, Service

LOOPBACK = "127.0.0.1"
HOLD_SECONDS = 30.0  # longer than any timeout in tasks/, and an end for a client that has none
STOP_SECONDS = 0.8  # under a second for a stop, with its own overhead
POLL_SECONDS = 0.02
BACKLOG = 128  # the default of 5 drops connects of a busy worker, which Linux repeats a whole second later
LARGEST_BODY_BYTES = 4_000_000

STAND_IN_HEADER = {"x-surefoot-stand-in": "true"}
# Linger for no time: close then sends RST, which is what a crashed server's peer gets to see.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request.

    Attributes:
        method: ``GET`` or ``POST``.
        path: Without the query.
        headers: Looked up in any case.
        body: As received; empty where there was none.
    """

    method: str
    path: str
    headers: EmailHeaders
    body: bytes

    def json(self) -> Any:
        """The body, decoded; None where it is not JSON, which no stand-in accepts either way."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer.

    Attributes:
        status: Of HTTP.
        content: A text goes out as plain text, anything else as JSON.
        headers: Besides those every answer has; may name another content type.
    """

    status: int
    content: str | dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


class HttpStandIn(Protocol):
    """What a stand-in brings; the server does the rest."""

    service: Service

    def unit_of(self, request: Request) -> str | None:
        """The unit of work a fault plan may name; None for requests that never fail."""

    def answer(self, request: Request) -> Answer:
        """Do what is asked. Called from many threads."""

    def refusal(self, status: int, reason: str) -> Answer:
        """A refusal in the service's own words and shape."""


@contextmanager
def serving(stand_in: HttpStandIn, faults: Faults) -> Iterator[str]:
    """Serve on a free port of the loopback, in threads, and yield the base address without a final slash.

    Stopping ends every connection, held ones too, and returns within a second.
    """
    server = _Server(stand_in, faults)
    listener = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True)
    listener.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}"
    finally:
        server.stop()
        listener.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = BACKLOG

    def __init__(self, stand_in: HttpStandIn, faults: Faults) -> None:
        self.stand_in, self.faults = stand_in, faults
        self.stopping = threading.Event()
        self.reset: set[socket.socket] = set()
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__((LOOPBACK, 0), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks the name service for this machine's name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        # In the listener's thread: once that has ended, stop knows every connection there is.
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._changed:
                self._open.discard(request)
                self._changed.notify_all()

    def shutdown_request(self, request: Any) -> None:
        if request in self.reset:
            # No FIN first: the orderly goodbye of the base class would hide the reset.
            self.reset.discard(request)
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that gave up, or was cut off by a stop, is a stand-in's daily bread; a bug is not.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()
        with self._changed:
            for connection in self._open:
                with suppress(OSError):  # closed by its client meanwhile
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, STOP_SECONDS)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "surefoot-stand-in", ""
    wbufsize = -1  # head and body in one packet: two would wait for each other's delayed acknowledgement
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        """Keep quiet: the demo's screen belongs to the demo."""

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def _respond(self) -> None:
        stand_in = self.server.stand_in
        size = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not size.isdecimal() or int(size) > LARGEST_BODY_BYTES:
            self.close_connection = True  # the body is still on the line and would be read as a request
            self._send(stand_in.refusal(413, f"send a body of at most {LARGEST_BODY_BYTES} bytes with its length"))
            return
        request = Request(self.command, self.path.partition("?")[0], self.headers, self.rfile.read(int(size)))
        unit = stand_in.unit_of(request)
        fault = None if unit is None else self.server.faults.next(stand_in.service, unit)
        if fault is None:
            self._send(stand_in.answer(request))
        else:
            self._fail(fault, request)

    def _fail(self, fault: Fault, request: Request) -> None:
        stand_in = self.server.stand_in
        match fault.kind:
            case Kind.RATE_LIMIT:
                self._send(stand_in.refusal(429, "too many requests (injected)"), _come_back(fault))
            case Kind.UNAVAILABLE:
                self._send(stand_in.refusal(503, "unavailable (injected)"))
            case Kind.TIMEOUT:
                self.server.stopping.wait(HOLD_SECONDS)
                self._tear_down()
            case Kind.LOST_ANSWER:
                stand_in.answer(request)
                self._tear_down()
            case _:
                self._tear_down()

    def _tear_down(self) -> None:
        self.close_connection = True
        self.server.reset.add(self.connection)

    def _send(self, answer: Answer, more: Mapping[str, str] | None = None) -> None:
        text = answer.content if isinstance(answer.content, str) else json.dumps(answer.content)
        kind = "text/plain; charset=utf-8" if isinstance(answer.content, str) else "application/json"
        body = text.encode()
        own = {"Content-Type": kind, "Content-Length": str(len(body))}
        if self.close_connection:
            own["Connection"] = "close"
        self.send_response(answer.status)
        for name, value in (own | STAND_IN_HEADER | dict(answer.headers) | dict(more or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _come_back(fault: Fault) -> dict[str, str]:
    seconds = fault.retry_after_seconds
    if seconds == int(seconds):
        return {"Retry-After": str(int(seconds))}
    return {"retry-after-ms": str(round(seconds * 1000))}

"""The world outside: a process of its own, over HTTP, with an append-only file that is on the disk before an answer.

    python -m tests.chaos.effect_server FOLDER

POST /RUN/MODE/ACTION     have an effect; the body is the job's params, X-Ref the job, Idempotency-Key the key
GET  /RUN/MODE/ACTION     look up with authority whether that of X-Ref has happened
POST /RUN                 {"do": "plan", "hold": "arrived" | "applied" | null, "drop": true | false}
                          {"do": "held", "seconds": 10} waits until a request is held; {"do": "release"}; {"do": "look"}

RUN names a folder under FOLDER, whose `effects.jsonl` it writes. A plan is for the run's next request alone.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.chaos.effect_books import Asked, Books
from tests.chaos.evidence import Effect

HOLD_SECONDS = 60.0
# Closing sends a reset at once, as a server's death would.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Plan:
    """What becomes of one request: where it is held, and whether its answer gets lost."""

    hold: str | None = None
    drop: bool = False


@dataclass(slots=True)
class Site:
    """One run's part of the world."""

    books: Books
    plan: Plan = field(default_factory=Plan)
    held: str | None = None
    released: bool = False
    open: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take_plan(self) -> Plan:
        """Return the plan for a request, once."""
        with self.changed:
            plan, self.plan = self.plan, Plan()
            return plan

    def hold(self, token: str) -> None:
        """Keep a request here until it is released."""
        with self.changed:
            self.held = token
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.released, HOLD_SECONDS)
            self.held = None

    def obey(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Do what the harness says; see the module."""
        with self.changed:
            if order["do"] == "plan":
                self.plan, self.released = Plan(order["hold"], order["drop"]), False
            elif order["do"] == "held":
                self.changed.wait_for(lambda: self.held is not None, order["seconds"])
            elif order["do"] == "release":
                self.released = True
                self.changed.notify_all()
            return {"held": self.held, "open": self.open}


class World(ThreadingHTTPServer):
    """All runs' parts, by name."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path) -> None:
        """Listen on a free port of the loopback."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self._sites, self._lock = folder, dict[str, Site](), threading.Lock()

    def site(self, run: str) -> Site:
        """Return a run's part."""
        with self._lock:
            if run not in self._sites:
                self._sites[run] = Site(Books(self.folder / run))
            return self._sites[run]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: World

    def do_POST(self) -> None:
        """Have an effect, or obey the harness."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        run, *rest = self.path.strip("/").split("/")
        site = self.server.site(run)
        if rest:
            self._have_effect(site, self._asked(rest, body))
        else:
            self._reply(site.obey(body))

    def do_GET(self) -> None:
        """Answer a look-up."""
        run, *rest = self.path.strip("/").split("/")
        books, asked = self.server.site(run).books, self._asked(rest, {})
        arrival = books.arrive(asked)
        answer = books.look_up(arrival, asked)
        books.end(arrival, asked, answer, dropped=False)
        self._reply(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the standard library's name
        """Say nothing: what counts is in the file."""

    def _asked(self, rest: list[str], body: Any) -> Asked:
        mode, action = rest
        attempt = self.headers.get("X-Attempt")
        return Asked(
            mode=_mode(mode),
            action=action,
            ref=self.headers["X-Ref"],
            key=self.headers.get("Idempotency-Key"),
            attempt=None if attempt is None else int(attempt),
            token=self.headers.get("X-Token"),
            body=body,
        )

    def _have_effect(self, site: Site, asked: Asked) -> None:
        with site.changed:
            site.open += 1
        try:
            plan, arrival = site.take_plan(), site.books.arrive(asked)
            if plan.hold == "arrived":
                site.hold(asked.token or "")
            answer = site.books.apply(arrival, asked)
            if plan.hold == "applied":
                site.hold(asked.token or "")
            dropped = plan.drop or self._is_alone()
            site.books.end(arrival, asked, answer, dropped=dropped)
            if dropped:
                self._hang_up()
            else:
                self._reply(answer)
        finally:
            with site.changed:
                site.open -= 1

    def _is_alone(self) -> bool:
        """Whether whoever asked has gone meanwhile."""
        self.connection.setblocking(False)
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.connection.setblocking(True)

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self.connection.close()

    def _reply(self, answer: Mapping[str, Any]) -> None:
        body = json.dumps(answer).encode()
        with suppress(OSError):  # whoever asked may be dead by now, and the books say what was done
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


def _mode(name: str) -> Effect:
    modes: dict[str, Effect] = {
        "pure": "pure",
        "idempotent": "idempotent",
        "keyed": "keyed",
        "verifiable": "verifiable",
        "unsafe": "unsafe",
    }
    return modes[name]


def main() -> None:
    """Serve until the harness ends: its end closes our standard input."""
    world = World(Path(sys.argv[1]))
    print(world.server_port, flush=True)  # noqa: T201  where to find us
    threading.Thread(target=world.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()

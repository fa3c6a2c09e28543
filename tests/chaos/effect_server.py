"""The world outside: a process of its own, over HTTP, with an append-only file that is on the disk before an answer.

    python -m tests.chaos.effect_server FOLDER [PORT]

POST /RUN/MODE/ACTION     have an effect; the body is the job's params, X-Ref the job, Idempotency-Key the key
GET  /RUN/MODE/ACTION     look up with authority whether that of X-Ref has happened
POST /RUN                 {"do": "plan", "hold": "arrived" | "applied" | null, "drop": true | false}
                          {"do": "held", "seconds": 10} waits until a request is held; {"do": "release"};
                          {"do": "look"}; {"do": "weather", "weather": {"lossy": 0.1, …}}, which lasts (weather.py)

RUN names a folder under FOLDER, whose `effects.jsonl` it writes. A plan is for the run's next request alone. A body
with ``answers``, such as [429], has as many requests of its job refused so, without an effect, before one has it.
Killed and started anew on its port, the server goes on where its file ends.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.chaos.effect_books import Asked, Books
from tests.chaos.evidence import Effect
from tests.chaos.weather import Fate, Weather, weather_of

HOLD_SECONDS = 60.0
REFUSALS: Mapping[Fate, int] = {"refused": 503, "patience": 429}
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
    weather: Weather = field(default_factory=Weather)
    met: Counter[str] = field(default_factory=Counter)
    held: str | None = None
    released: bool = False
    open: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)
    refused: Counter[str] = field(default_factory=Counter)

    def refusal(self, asked: Asked) -> int | None:
        """Return the status with which a request is refused; None where it is not."""
        answers = asked.body.get("answers", ()) if isinstance(asked.body, dict) else ()
        with self.changed:
            number = self.refused[asked.ref]
            if number >= len(answers):
                return None
            self.refused[asked.ref] += 1
            return int(answers[number])

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
            elif order["do"] == "weather":
                self.weather = weather_of(order["weather"])
            return {"held": self.held, "open": self.open, "met": dict(self.met)}

    def fate(self, arrival: int, mode: str) -> Fate:
        """Return what becomes of a request by the weather, and count it."""
        with self.changed:
            fate = self.weather.fate(arrival, mode)
            self.met[fate] += 1
            return fate


class World(ThreadingHTTPServer):
    """All runs' parts, by name."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, port: int = 0) -> None:
        """Listen on a port of the loopback; 0 is a free one."""
        super().__init__(("127.0.0.1", port), Handler)
        self.folder, self._sites, self._lock = folder, dict[str, Site](), threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that died in the midst of its request, of which nothing was done."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

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
        said = self.rfile.read(length := int(self.headers["Content-Length"]))
        if len(said) < length:
            raise ConnectionAbortedError("the request has no end")
        body = json.loads(said)
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
        arrival, answer = books.look_up(asked)
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
            fate = site.fate(arrival, asked.mode)
            if plan.hold == "arrived":
                site.hold(asked.token or "")
            if (status := REFUSALS.get(fate) or site.refusal(asked)) is not None:
                site.books.end(arrival, asked, None, dropped=False)
                self._reply({"refused": status}, status)
                return
            answer = site.books.apply(arrival, asked)
            if plan.hold == "applied":
                site.hold(asked.token or "")
            time.sleep(site.weather.latency + (site.weather.slow_seconds if fate == "slow" else 0.0))
            dropped = plan.drop or fate in ("lossy", "half") or self._is_alone()
            site.books.end(arrival, asked, answer, dropped=dropped)
            if not dropped:
                self._reply(answer)
                return
            if fate == "half":
                self._reply(answer, whole=False)
            self._hang_up()
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

    def _reply(self, answer: Mapping[str, Any], status: int = 200, *, whole: bool = True) -> None:
        body = json.dumps(answer).encode()
        with suppress(OSError):  # whoever asked may be dead by now, and the books say what was done
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if whole else body[: len(body) // 2])


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
    world = World(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
    print(world.server_port, flush=True)  # noqa: T201  where to find us
    threading.Thread(target=world.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()

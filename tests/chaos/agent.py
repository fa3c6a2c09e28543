"""The harness's hand inside a process: it parks at a named point until it is let go, or is killed there.

A process of the chaos tests connects to the harness's socket. Told to be armed at a point, the thread or coroutine that
next comes there says so and waits. Everything else in the process goes on: renewals, the relay, Celery's own loop.
When the harness is gone, the process kills itself, so that none is left behind.

From the harness: {"n": 1, "do": "arm", "point": "claim.before" | null}, which lets go of everything that is parked;
{"n": 2, "do": "go", "ticket": 7}; {"n": 3, "do": "busy"}. Each is answered with {"n": 1, "busy": 0}. From here:
{"pid", "root"} first, and {"ticket", "point", "jobs"} at a point; `jobs` is null where nobody knows them there.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

SOCKET = "CHAOS_SOCKET"


class Agent:
    """One process's. A forked child gets a connection of its own."""

    def __init__(self) -> None:
        """Connect to where the environment says."""
        self._root = os.getpid()
        self._connect()
        os.register_at_fork(after_in_child=self._connect)

    def _connect(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(os.environ[SOCKET])
        self._sending = threading.Lock()
        self._tickets = itertools.count(1)
        self._arming = threading.Lock()
        self._parked: dict[int, Future[None]] = {}
        self._point: str | None = None
        self.busy = 0
        self._send({"pid": os.getpid(), "root": self._root})
        threading.Thread(target=self._listen, name="chaos-agent", daemon=True).start()

    def park(self, point: str, jobs: Iterable[Any] | None = None) -> bool:
        """Keep this thread here, if the process is armed at `point`; return whether it was."""
        parked = self._reach(point, jobs)
        if parked is None:
            return False
        parked.result()
        return True

    async def park_here(self, point: str, jobs: Iterable[Any] | None = None) -> None:
        """Keep this coroutine here, also where it is cut off meanwhile: no product code waits at this place."""
        parked = self._reach(point, jobs)
        if parked is None:
            return
        waited = asyncio.wrap_future(parked)
        while not waited.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(waited)

    def is_armed(self, point: str) -> bool:
        """Whether whoever comes to `point` is kept there."""
        return self._point == point

    def _reach(self, point: str, jobs: Iterable[Any] | None) -> Future[None] | None:
        with self._arming:
            if self._point != point:
                return None
            ticket, parked = next(self._tickets), Future[None]()
            self._parked[ticket] = parked
        named = None if jobs is None else [str(job) for job in jobs]
        self._send({"ticket": ticket, "point": point, "jobs": named})
        return parked

    def _send(self, message: dict[str, Any]) -> None:
        with self._sending:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _listen(self) -> None:
        with suppress(OSError), self._socket.makefile("rb") as lines:
            for line in lines:
                self._obey(json.loads(line))
        os.kill(os.getpid(), signal.SIGKILL)

    def _obey(self, order: dict[str, Any]) -> None:
        if order["do"] == "arm":
            with self._arming:
                self._point = order["point"]
            for ticket in list(self._parked):
                self._let_go(ticket)
        elif order["do"] == "go":
            self._let_go(order["ticket"])
        self._send({"n": order["n"], "busy": self.busy + len(self._parked)})

    def _let_go(self, ticket: int) -> None:
        parked = self._parked.pop(ticket, None)
        if parked is not None:
            parked.set_result(None)

"""The harness's end of every agent's connection: who is there, where it is parked, and orders that are answered."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.patience import NotReached

ANSWER_SECONDS = 10.0


@dataclass(slots=True, eq=False)
class Line:
    """One process's connection; `root` is the first process of its group, itself but for a pool's children."""

    connection: socket.socket
    pid: int
    root: int
    answers: dict[int, int] = field(default_factory=dict)

    def send(self, order: dict[str, Any]) -> None:
        """Give an order; a process that has just died hears nothing."""
        with suppress(OSError):
            self.connection.sendall(json.dumps(order).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class Parked:
    """Somebody has come to a point and waits there; `jobs` is None where nobody knows them there, `at` UTC seconds."""

    line: Line
    ticket: int
    point: str
    jobs: tuple[str, ...] | None
    at: float


class Switchboard:
    """One lane's connections."""

    def __init__(self, path: Path) -> None:
        """Listen on a socket of the file system; its path may have 100 bytes."""
        self.path = path
        self._changed = threading.Condition()
        self._lines: list[Line] = []
        self._parked: list[Parked] = []
        self._numbers = itertools.count(1)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        threading.Thread(target=self._accept, name="switchboard", daemon=True).start()

    def pids_of(self, root: int) -> set[int]:
        """Return the processes of a group that are connected."""
        with self._changed:
            return {line.pid for line in self._lines if line.root == root}

    def arm(self, point: str | None, roots: Collection[int], *, answered: bool = True) -> None:
        """Have these processes park at a point, or at none, and let go of all that are parked; wait until they know.

        `answered` is false where one is stopped: it will know before it does anything else.
        """
        with self._changed:
            self._parked = [each for each in self._parked if each.line.root not in roots]
        self._order({"do": "arm", "point": point}, roots, answered=answered)

    def busy(self, roots: Collection[int]) -> int:
        """Return how many attempts run in these processes, and how many threads are parked."""
        return sum(self._order({"do": "busy"}, roots, answered=True))

    def until_parked(self, wanted: Callable[[Parked], bool], *, seconds: float) -> Parked:
        """Wait for somebody to park whom the cell is about; others are let go.

        Raises:
            NotReached: If nobody does.
        """
        found: list[Parked] = []

        def look() -> bool:
            while self._parked and not found:
                parked = self._parked.pop(0)
                if wanted(parked):
                    found.append(parked)
                else:
                    parked.line.send({"n": 0, "do": "go", "ticket": parked.ticket})
            return bool(found)

        with self._changed:
            if not self._changed.wait_for(look, seconds):
                raise NotReached(f"nobody came there in {seconds:g} s")
        return found[0]

    def close(self) -> None:
        """Hang up: whoever is still connected kills itself."""
        self._socket.close()
        with self._changed:
            for line in self._lines:
                with suppress(OSError):
                    line.connection.shutdown(socket.SHUT_RDWR)

    def _order(self, order: dict[str, Any], roots: Collection[int], *, answered: bool) -> list[int]:
        number = next(self._numbers)
        with self._changed:
            lines = [line for line in self._lines if line.root in roots]
        for line in lines:
            line.send({"n": number, **order})
        if not answered:
            return []

        def all_there() -> bool:
            return all(number in line.answers or line not in self._lines for line in lines)

        with self._changed:
            if not self._changed.wait_for(all_there, ANSWER_SECONDS):
                raise NotReached(f"a process does not answer {order}")
            return [line.answers.pop(number) for line in lines if number in line.answers]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(connection,), name="agent-line", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        line: Line | None = None
        with suppress(OSError), connection, connection.makefile("rb") as messages:
            for text in messages:
                message = json.loads(text)
                with self._changed:
                    if line is None:
                        line = Line(connection, message["pid"], message["root"])
                        self._lines.append(line)
                    elif "ticket" in message:
                        jobs = None if message["jobs"] is None else tuple(message["jobs"])
                        self._parked.append(Parked(line, message["ticket"], message["point"], jobs, time.time()))
                    else:
                        line.answers[message["n"]] = message["busy"]
                    self._changed.notify_all()
        with self._changed:
            if line is not None:
                self._lines.remove(line)
                self._parked = [each for each in self._parked if each.line is not line]
            self._changed.notify_all()

"""The harness's end of a proxy: one of the links between the crew and a server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from tests.houses import ROOT

STOP_SECONDS = 10.0


class Link:
    """One proxy; see `proxy.py` for its orders."""

    def __init__(self, port: int) -> None:
        """Start it, in front of a port of the loopback."""
        command = [sys.executable, "-m", "tests.chaos.storm.proxy", "127.0.0.1", str(port)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lock = threading.Lock()
        self.port = int(self._answer())

    @classmethod
    @contextmanager
    def to(cls, port: int) -> Iterator[Self]:
        """Have one for a block."""
        link = cls(port)
        try:
            yield link
        finally:
            link.close()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def order(self, do: str, **more: Any) -> Mapping[str, int]:
        """Give an order; return what the proxy did so far."""
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
            self._process.stdin.flush()
            found: Mapping[str, int] = json.loads(self._answer())
        return found

    def close(self) -> None:
        """End it."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(STOP_SECONDS)

    def _answer(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise OSError(f"the proxy ended with {self._process.wait(STOP_SECONDS)}")
        return line

"""Threads that are there only while they are needed: begun at the first use, gone when idle, left behind by a fork."""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod

# Without this, whoever drops a Producer without closing it would keep its threads and connections for good.
IDLE_SECONDS = 10.0
CLOSE_SECONDS = 1.0


class Standby(ABC):
    """Owns one daemon thread and `_changed`, the condition under which its state is read and written."""

    def __init__(self, name: str) -> None:
        """Start nothing yet; the thread will bear the `name`."""
        self._name = name
        self._renew()
        _all.add(self)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Have the thread end once nothing is left to do, and wait `seconds` for that. A later use begins anew."""
        with self._changed:
            self._closing = True
            self._stir()
            thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _renew(self) -> None:
        """Begin with nothing. In a forked child the thread is not there, and what it held then stays locked."""
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def _call(self) -> None:
        """Have the thread see what has changed; begin one where there is none. The caller holds `_changed`."""
        self._closing = False
        if self._thread is None:
            self._prepare()
            thread = threading.Thread(target=self._live, name=self._name, daemon=True)
            thread.start()
            self._thread = thread
        self._stir()

    def _live(self) -> None:
        try:
            self._run()
        finally:  # also where it died of what nobody thought of: the next use begins another
            with self._changed:
                if self._thread is threading.current_thread():
                    self._thread = None

    def _stir(self) -> None:
        self._changed.notify_all()

    def _prepare(self) -> None:  # noqa: B027  most need nothing
        """Import what the thread needs: a fork while a thread imports leaves the child waiting for it for ever."""

    @abstractmethod
    def _run(self) -> None:
        """Work until idle; then set `_thread` to None while holding `_changed`, and return."""


_all: weakref.WeakSet[Standby] = weakref.WeakSet()


def _renew() -> None:
    for each in list(_all):
        each._renew()  # noqa: SLF001  its own module's


os.register_at_fork(after_in_child=_renew)

"""Celery's task events, for Flower and `celery events`: the same ones, in fewer messages.

Celery publishes what has gathered each time round its loop, which under load is once a job, and costs more than
anything else that the worker's main thread does for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.app.events import Events as CeleryEvents
from celery.events.dispatcher import EventDispatcher
from kombu.asynchronous import Hub

from worker.stopping import is_stopping

GATHER_SECONDS = 0.05
# Beyond this the one who adds an event publishes them all.
GATHER_LIMIT = 2_000


class Dispatcher(EventDispatcher):
    """Publishes the task events of 50 ms in one message."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take Celery's own arguments; a dispatcher that is not told to gather publishes at once, as ever."""
        self._hub: Any = None  # its stubs take a set for a list
        super().__init__(*args, **kwargs)
        if (consumers := kwargs.get("on_send_buffered")) is not None:
            # The consumer's own, since kombu forgets which hub is the current one when a connection is lost.
            self._hub = consumers.__self__.hub
            self.buffer_limit = GATHER_LIMIT
            self.on_send_buffered: Callable[[], None] = _once_in(GATHER_SECONDS, self._hub, self.flush)
            # While the worker stops, nobody turns its hub, whose timers do not run out any more.
            self._hub.on_close.add(self._flush_at_the_end)

    def close(self) -> None:
        """Publish nothing any more."""
        if self._hub is not None:
            self._hub.on_close.discard(self._flush_at_the_end)
        super().close()

    def _flush_at_the_end(self, _: Hub) -> None:
        if is_stopping():  # else it is the broker that went away, and there is nothing to publish over
            self.flush()


class Events(CeleryEvents):
    """Celery's events with our dispatcher."""

    dispatcher_cls = "worker.events:Dispatcher"


def _once_in(seconds: float, hub: Hub, flush: Callable[[], None]) -> Callable[[], None]:
    """Return what may be called at every event, from any thread, and flushes that much after the first."""
    asked = False

    def begin() -> None:
        hub.call_later(seconds, end)

    def end() -> None:
        nonlocal asked
        asked = False  # first: an event that comes in between asks again
        flush()

    def ask() -> None:
        nonlocal asked
        if not asked:
            asked = True
            hub.call_soon(begin)  # the hub's timers are not for other threads, its queue is

    return ask

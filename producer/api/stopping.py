"""Knowing that the server stops, for those who wait in it: they answer at once with what there is."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any


class Stopping:
    """Whether the server stops. `begin` may be called from a signal handler; the rest belongs on the loop."""

    def __init__(self) -> None:
        """Go on for now."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()
        self.begun = False

    def begin(self) -> None:
        """Have everybody who waits stop waiting."""
        self.begun = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._event.set)

    async def first_of(self, news: Future[None], *, seconds: float) -> None:
        """Wait for news, for the server to stop, or for so long; return what comes first.

        Raises:
            Exception: What the news are, where they are bad.
        """
        self._loop = asyncio.get_running_loop()
        if self.begun:
            return
        told, stop = asyncio.wrap_future(news), asyncio.ensure_future(self._event.wait())
        try:
            either: set[asyncio.Future[Any]] = {told, stop}
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                told.result()
        finally:
            told.cancel()
            stop.cancel()

"""Threads for sync actions. A thread cannot be stopped, so one whose action outlives its deadline is left behind.

The standard library's executor waits for its threads when the process ends; one that never returns would keep a
worker from ever stopping. These are daemons.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import thread as standard
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from tasks._outcomes import AttemptTimeout


class Threads:
    """Threads that are started when needed and used again. How many calls there are at once is the caller's business.

    Attributes:
        left_behind: Calls that outlived their deadline and have not returned yet.
        on_left_behind: Told how many there are, on the loop, whenever one more is.
    """

    def __init__(self) -> None:
        """Start none yet."""
        self.left_behind = 0
        self.on_left_behind: Callable[[int], None] = lambda _: None
        self._idle: list[_Thread] = []

    async def call(self, function: Callable[[], Any], *, seconds: float) -> Any:
        """Call `function` in a thread, with the caller's context variables; return or raise what it does.

        Raises:
            AttemptTimeout: If it has not returned in time. It goes on, and nobody hears of it.
        """
        loop = asyncio.get_running_loop()
        thread = self._idle.pop() if self._idle else _Thread()
        call = _Call(function, copy_context(), loop, loop.create_future(), lambda: self._ended(thread, call))
        thread.calls.put(call)
        try:
            async with asyncio.timeout(seconds):
                result, failure = await call.future
        except BaseException as error:
            if not call.returned:
                call.left_behind = True
                self.left_behind += 1
                self.on_left_behind(self.left_behind)
            if isinstance(error, TimeoutError):
                raise AttemptTimeout(f"no answer within {seconds:g} s; its thread is left behind") from None
            raise
        if failure is not None:
            raise failure
        return result

    def _ended(self, thread: _Thread, call: _Call) -> None:
        if call.left_behind:
            self.left_behind -= 1
        self._idle.append(thread)


@dataclass(slots=True, eq=False)
class _Call:
    """One call, made in a thread and answered on the loop."""

    function: Callable[[], Any]
    context: Context
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    on_end: Callable[[], None]
    returned: bool = False
    left_behind: bool = False

    def make(self) -> None:
        """Call the function, in this thread."""
        result, failure = None, None
        try:
            result = self.context.run(self.function)
        except BaseException as error:  # noqa: BLE001  it is raised again, where somebody waits for it
            failure = error
        with suppress(RuntimeError):  # the loop is gone, and with it whoever waited
            self.loop.call_soon_threadsafe(self._answer, result, failure)

    def _answer(self, result: Any, failure: BaseException | None) -> None:
        self.returned = True
        self.on_end()
        if not self.future.done():  # else nobody waits any more
            # Not as the future's exception: it cannot hold StopIteration, and GeneratorExit closes whoever awaits it.
            self.future.set_result((result, failure))


class Executor(ThreadPoolExecutor):
    """asyncio's own threads, in which it looks up names and actions call `to_thread`: nobody waits for them either.

    They are daemons, since they are started by one, the loop's thread; but the standard library waits for daemons, too.
    """

    def _adjust_thread_count(self) -> None:
        super()._adjust_thread_count()
        for thread in self._threads:
            standard._threads_queues.pop(thread, None)  # type: ignore[attr-defined]  # noqa: SLF001  its list of those


class _Thread(threading.Thread):
    """A thread that makes calls one after another."""

    def __init__(self) -> None:
        super().__init__(name="action", daemon=True)
        self.calls: SimpleQueue[_Call] = SimpleQueue()
        self.start()

    def run(self) -> None:
        while True:
            self.calls.get().make()

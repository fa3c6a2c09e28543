"""Calling an action's function: on the event loop or in a thread, never beyond its deadline."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from producer.errors import SurefootError
from tasks._outcomes import AttemptTimeout
from worker.threads import Threads

T = TypeVar("T")

# How long an async action that is cancelled may take to tidy up.
LAST_WORDS_SECONDS = 2.0


class Performable(Protocol):
    """What can be performed: an action, a hook of one, a policy."""

    @property
    def function(self) -> Callable[..., Any]:
        """What to call."""

    @property
    def is_async(self) -> bool:
        """Whether that makes a coroutine."""


@dataclass(frozen=True, slots=True)
class Work:
    """What to perform, where nothing else has the shape of it."""

    function: Callable[..., Any]
    is_async: bool


class Performer:
    """Performs actions for one worker process, on its loop.

    Attributes:
        places: For attempts of async actions.
        thread_places: For those of sync actions.
        beside: For sync hooks and policies, each of which takes a thread; none of them waits for another.
        threads: In which these run.
        deaf: Async actions that overheard that they should end and have not ended yet; their attempts have.
    """

    def __init__(self, *, thread_places: int, threads: Threads) -> None:
        """Start no thread yet. How many async attempts run at once is Celery's pool's to say, which knows its limit."""
        self.places, self.thread_places, self.threads = Places(math.inf), Places(thread_places), threads
        self.beside = Places(thread_places)
        self.deaf = 0

    def room(self, work: Performable) -> Places:
        """Return where a place is to be taken for attempts at this action, before their jobs are claimed."""
        return self.places if work.is_async else self.thread_places

    def room_beside(self, work: Performable, *, has_thread: bool = False) -> AbstractAsyncContextManager[None]:
        """Return where what stands beside an attempt's action has its place for a block: a hook of it, a policy.

        Args:
            work: That.
            has_thread: Whether the attempt has a thread, as one of a sync action does, in whose place it may run.
        """
        return nullcontext() if work.is_async or has_thread else self.beside.take(1)

    def close(self) -> None:
        """Begin nothing more."""
        self.places.close()
        self.thread_places.close()

    async def perform(self, work: Performable, arguments: dict[str, Any], *, seconds: float) -> Any:
        """Call the action and return what it returned, or raise what it raised.

        Context variables of the caller are the action's own. An async action is cancelled at its deadline, and where
        this is. A sync one cannot be: it is left behind in its thread, as is an async one that does not listen, and
        whatever they still do counts as unknown.

        Args:
            work: The action, or its verify hook.
            arguments: By name, typed.
            seconds: Until its deadline.

        Raises:
            AttemptTimeout: If it did not end in time.
            BaseException: Whatever the action raises.
        """
        if work.is_async:
            return await self._on_loop(work.function(**arguments), seconds=seconds)
        return await self.threads.call(lambda: work.function(**arguments), seconds=seconds)

    async def _on_loop(self, action: Coroutine[Any, Any, Any], *, seconds: float) -> Any:
        current = asyncio.current_task()
        # In a task of its own: who awaits an action itself cannot leave it behind.
        task = asyncio.create_task(caught(action), name=None if current is None else current.get_name())
        over: BaseException | None = None
        try:
            if not await _ends(task, seconds=seconds):
                over = AttemptTimeout(f"no answer within {seconds:g} s")
        except asyncio.CancelledError as error:
            over = error
        if over is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):  # being cut off, or once more, gives no more time
                await _ends(task, seconds=LAST_WORDS_SECONDS)
            if not task.done():
                self._leave_behind(task)
                raise over
        returned, failure = task.result()
        if failure is None:
            return returned
        if over is not None and isinstance(failure, asyncio.CancelledError):
            raise over from failure
        raise failure

    def _leave_behind(self, task: asyncio.Task[Any]) -> None:
        def ended(_: object) -> None:
            self.deaf -= 1

        self.deaf += 1
        task.add_done_callback(ended)


class Closed(SurefootError):
    """The worker is stopping and begins nothing more."""


class Places:
    """A bound on how much runs at once, first come first served.

    Attributes:
        limit: A ring of several jobs may exceed it by its own size: it is taken up whole or not at all.
        taken: By jobs.
    """

    def __init__(self, limit: float) -> None:
        """Take none yet."""
        self.limit, self.taken = limit, 0
        self._line: deque[tuple[asyncio.Future[None], int]] = deque()
        self._closed = False

    @asynccontextmanager
    async def take(self, count: int) -> AsyncIterator[None]:
        """Take `count` places for the block; wait for them where none is free, or others wait already.

        Raises:
            Closed: If it is too late to begin anything.
        """
        if self._closed:
            raise Closed
        if self.taken < self.limit and not self._line:
            self.taken += count
        else:
            turn = asyncio.get_running_loop().create_future()
            self._line.append((turn, count))
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # it had its turn in the same moment
                    self._give_back(count)
                raise
        try:
            yield
        finally:
            self._give_back(count)

    def close(self) -> None:
        """Let nobody in any more, nor those who wait; whoever is in stays until he leaves."""
        self._closed = True
        while self._line:
            turn, _ = self._line.popleft()
            if not turn.done():
                turn.set_exception(Closed())

    def _give_back(self, count: int) -> None:
        self.taken -= count
        while self._line and self.taken < self.limit:
            turn, wanted = self._line.popleft()
            if not turn.done():
                self.taken += wanted
                turn.set_result(None)


async def caught(action: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    """Await an action. In a task, SystemExit and KeyboardInterrupt would end the loop with all that runs on it."""
    try:
        return await action, None
    except BaseException as error:  # noqa: BLE001  it is raised again, where somebody waits for it
        return None, error


async def _ends(task: asyncio.Task[Any], *, seconds: float) -> bool:
    """Wait for a task, and return whether it ended in time. Where it did not, it goes on: unlike `asyncio.timeout`."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake(*_: object) -> None:
        if not waiter.done():
            waiter.set_result(None)

    limit = loop.call_later(seconds, wake)
    task.add_done_callback(wake)
    try:
        await waiter
    finally:
        limit.cancel()
        task.remove_done_callback(wake)
    return task.done()


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end, also where the caller is being cut off meanwhile.

    Whoever was cut off finds that in `worker.loop.cut_off`.

    Raises:
        BaseException: What `work` raises.
    """
    task = asyncio.create_task(caught(work))
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    returned, failure = task.result()
    if failure is not None:
        raise failure
    return returned  # type: ignore[no-any-return]  # what `work` returned

"""The one event loop of a worker process. Every attempt runs on it, whichever pool Celery was started with.

In the asyncio pool a Celery task is a greenlet on this loop and waits by switching back to it. In `threads` and
`prefork` it has a thread to itself, which waits for the loop's. `wait_for` is both, so the code of an attempt is one.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, cast

from billiard import current_process
from greenlet import getcurrent, greenlet

from worker.log import log
from worker.settings import WorkerSettings
from worker.stopping import CUT_OFF_SECONDS, ending_in_good_order, why_told
from worker.threads import Executor
from worker.watchdog import Watchdog

T = TypeVar("T")

Reason = Literal["stopping", "revoked", "time limit", "terminated"]


@dataclass(slots=True)
class CutOff:
    """Why the attempts of one ring are being cut off; None as long as they are not.

    Set before the cancellation is sent, so that whoever is cancelled can tell it from an action's own.
    """

    reason: Reason | None = None


cut_off: ContextVar[CutOff] = ContextVar("cut_off")


_making = threading.Lock()
os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_making.release)


class TaskGreenlet(greenlet):  # type: ignore[misc]  # it has no types of its own
    """Runs Celery's tracer for one task of the asyncio pool. Its parent drives it from the loop."""


def process_loop() -> asyncio.AbstractEventLoop:
    """Return this process's loop; its thread starts at the first use. A forked child gets one of its own."""
    with _making:  # the first tasks of a pool of threads ask at the same time
        return _loop_of(os.getpid())


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on the loop, and return what it returned or raise what it raised.

    Called from a Celery task's body. Where a time limit of Celery's interrupts the waiting, the work is cut off. So it
    is where a child of prefork is told to end, which then ends once the work has, or after `CUT_OFF_SECONDS`; after a
    hard time limit Celery waits for a tenth of a second, and kills it.
    """
    current = getcurrent()
    if isinstance(current, TaskGreenlet):
        assert current.parent is not None  # noqa: S101  for the type checker; the pool's greenlets have one
        return current.parent.switch(work)  # type: ignore[no-any-return]  # what `work` returned
    with ending_in_good_order() if current_process().daemon else nullcontext():
        return _wait_for(work)


def _wait_for(work: Coroutine[Any, Any, T]) -> T:
    cut, ended = CutOff(), threading.Event()
    cut_off.set(cut)  # the coroutine's task takes this thread's context along
    future = asyncio.run_coroutine_threadsafe(_to_its_end(work, ended), process_loop())
    try:
        return future.result()
    except SystemExit:
        if not future.done():  # else it is an action's own
            cut.reason = why_told()
            future.cancel()
            ended.wait(CUT_OFF_SECONDS)
        raise
    except BaseException:
        if not future.done():
            cut.reason = "time limit"
            future.cancel()
        raise


async def _to_its_end(work: Coroutine[Any, Any, T], ended: threading.Event) -> T:
    try:
        return await work
    finally:
        ended.set()


async def all_of(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all at the same time, to the end of each, also where this is cut off: then each of them is.

    Raises:
        BaseException: What the first of them raised, if any did.
    """
    tasks = [asyncio.create_task(work) for work in works]
    left = set(tasks)
    while left:
        try:
            _, left = await asyncio.wait(left)
        except asyncio.CancelledError:
            for task in left:
                task.cancel()
    return [task.result() for task in tasks]


async def all_but(
    lost: tuple[type[Exception], ...], works: Iterable[Coroutine[Any, Any, T]], *, log_lost: Callable[[Exception], None]
) -> list[T]:
    """Await all at the same time, to the end of each; what some raise of these errors hides nothing of the others.

    Raises:
        BaseException: What the first of them raised, if that is another error, or if not one came to its end.
    """

    async def either(work: Coroutine[Any, Any, T]) -> tuple[T | None, Exception | None]:
        try:
            return await work, None
        except lost as error:
            return None, error

    ends = await all_of(map(either, works))
    errors = [error for _, error in ends if error is not None]
    if errors and len(errors) == len(ends):
        raise errors[0]
    for error in errors:
        log_lost(error)
    return [cast("T", ended) for ended, error in ends if error is None]


@cache
def _loop_of(_pid: int) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_default_executor(Executor())
    thread = threading.Thread(target=_run, args=(loop,), name="loop", daemon=True)
    thread.start()
    Watchdog(loop, thread, after_seconds=WorkerSettings.from_env().loop_blocked_seconds).start()
    return loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:  # of a task that an action made
            # asyncio lets these two through. Whoever awaits that task gets them, too, and what is ready still is.
            log.warning("loop.interrupted", error_type=type(error).__name__)

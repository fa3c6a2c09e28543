"""Calling an action's function: on an event loop or in a thread, never beyond its deadline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any

from tasks._outcomes import AttemptTimeout
from tasks._spec import ActionSpec


class Performer:
    """Performs actions for one worker process, from any of its threads."""

    def __init__(self) -> None:
        """Start no thread and no loop yet."""
        self._loops = threading.local()

    def perform(self, spec: ActionSpec, arguments: dict[str, Any], *, timeout: float) -> Any:
        """Call the action and return what it returned, or raise what it raised.

        Context variables of the caller are the action's own. An async action is cancelled at its deadline. A sync
        one cannot be: it is left behind in its thread, and whatever it still does counts as unknown.

        Args:
            spec: The action.
            arguments: By name, typed.
            timeout: Seconds.

        Raises:
            AttemptTimeout: If it did not end in time.
            BaseException: Whatever the action raises.
        """
        if spec.is_async:
            return self._loop().run_until_complete(_bounded(spec.function(**arguments), seconds=timeout))
        return _in_thread(lambda: spec.function(**arguments), seconds=timeout)

    def _loop(self) -> asyncio.AbstractEventLoop:
        # One loop per thread for good: the actions' clients keep their connections in it.
        loop: asyncio.AbstractEventLoop | None = getattr(self._loops, "loop", None)
        if loop is None:
            loop = self._loops.loop = asyncio.new_event_loop()
        return loop


def _in_thread(call: Callable[[], Any], *, seconds: float) -> Any:
    ended: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    context = copy_context()

    def run() -> None:
        try:
            ended.put((context.run(call), None))
        except BaseException as error:  # noqa: BLE001  it is raised again, where somebody waits for it
            ended.put((None, error))

    # A daemon: a function that never returns must not keep its process from ending.
    threading.Thread(target=run, name="action", daemon=True).start()
    try:
        returned, error = ended.get(timeout=seconds)
    except Empty:
        raise AttemptTimeout(f"no answer within {seconds:g} s; its thread is left behind") from None
    if error is not None:
        raise error
    return returned


async def _bounded(action: Coroutine[Any, Any, Any], *, seconds: float) -> Any:
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            return await action
    except TimeoutError as error:
        if scope.expired():
            raise AttemptTimeout(f"no answer within {seconds:g} s") from error
        raise

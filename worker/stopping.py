"""Whether this worker is stopping, how children of prefork end with it, and having it stop for its own sake.

Celery notes a stop down where a signal asked for it, and not for `control shutdown`; and it does so in the worker's
first process alone.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal

from billiard import common, current_process
from celery.platforms import EX_OK
from celery.worker import state

from worker.log import log

_COMMON: Any = common  # its stubs leave out what is used here
# A worker that is told to go at once still waits so long for the attempts it cuts off to be settled.
CUT_OFF_SECONDS = 5.0
# In memory that forks share: a child of prefork that is told to end cannot know by itself why. Here is the id of the
# last one that outran its time, or that all of them are to end; and whether one of them has had the worker stop.
_told, _recycled = (memoryview(mmap.mmap(-1, 8)).cast("q") for _ in range(2))
_ALL = -1


def is_stopping() -> bool:
    """Whether somebody asked for it by now."""
    return _told[0] == _ALL or _is_noted()


def _is_noted() -> bool:
    # Either is the exit status that was asked for, and 0 is one; or None or False, which 0 equals.
    return any(status is not None and status is not False for status in (state.should_stop, state.should_terminate))


def note_stop() -> None:
    """Have everybody know of it, whoever asked."""
    if not _is_noted():
        state.should_stop = EX_OK  # type: ignore[assignment]  # its stubs know only the None of the start


def tell_children() -> None:
    """Have the children of prefork know that they are told to end because the worker does, and at once."""
    _told[0] = _ALL


def tell_of_limit(pid: int) -> None:
    """Have one of them know that it is because of a time limit of Celery's."""
    if not is_stopping():
        _told[0] = pid


def why_told() -> Literal["stopping", "time limit", "terminated"]:
    """Return why this child is told to end; terminated is for a reason that only somebody else knows."""
    if is_stopping():
        return "stopping"
    return "time limit" if _told[0] == os.getpid() else "terminated"


@contextmanager
def ending_in_good_order() -> Iterator[None]:
    """Have a child of prefork that is told to end within the block, and told again while it does, come to its end.

    Whoever presses twice tells it twice. billiard's own handler raises SystemExit, too, and has the kernel kill at the
    second; as it is after the block, once a first one has come.
    """
    theirs = {n: handler for n in (signal.SIGTERM, signal.SIGQUIT) if callable(handler := signal.getsignal(n))}
    for number in theirs:  # the others are to be ignored
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in theirs.items():
            signal.signal(number, signal.SIG_DFL if _is_ending() else handler)


def _end(number: int, _frame: FrameType | None) -> None:
    if not _is_ending():
        _COMMON._should_have_exited[0] = True  # noqa: SLF001  so billiard knows that what this unwinds is no task's end
        sys.exit(-(256 - number))


def _is_ending() -> bool:
    return bool(_COMMON.terminate_handler_fired())


def recycle(cap: int, left_behind: int) -> None:
    """End this process's worker in good order, to be started anew, where so many threads will never come back.

    Those that a stop, or a child's end, leaves behind are over with it. It is asked for once: twice is in a hurry.
    """
    if left_behind >= cap and not (_recycled[0] or is_stopping() or _is_ending()):
        _recycled[0] = True
        log.error("worker.recycling", threads_left_behind=left_behind)
        os.kill(os.getppid() if current_process().daemon else os.getpid(), signal.SIGTERM)

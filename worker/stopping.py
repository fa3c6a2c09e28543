"""Whether this worker is stopping. Celery notes it down where a signal asked for it, and not for `control shutdown`."""

from __future__ import annotations

from celery.platforms import EX_OK
from celery.worker import state


def is_stopping() -> bool:
    """Whether somebody asked for it by now."""
    # Either is the exit status that was asked for, and 0 is one; or None or False, which 0 equals.
    return any(status is not None and status is not False for status in (state.should_stop, state.should_terminate))


def note_stop() -> None:
    """Have everybody know of it, whoever asked."""
    if not is_stopping():
        state.should_stop = EX_OK  # type: ignore[assignment]  # its stubs know only the None of the start

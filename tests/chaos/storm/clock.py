"""A wall clock that can be made to jump, in the workers of a storm alone: no process can have one of its own here.

Imported before anything else, so that whoever takes `time.time` by name has this one. The offset, in seconds, stands in
the file that STORM_CLOCK names; the process notes beside it which it has felt. The monotonic clock stays as it is, as
where a machine's clock is set.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

CLOCK = "STORM_CLOCK"
LOOK_SECONDS = 0.1

_true_time = time.time
_monotonic = time.monotonic


class Clock:
    """This process's."""

    def __init__(self, path: Path) -> None:
        """Show the true time, for now."""
        self._path, self._looked_at, self._offset = path, 0.0, 0.0

    def time(self) -> float:
        """Stand in for `time.time`."""
        now = _monotonic()
        if now - self._looked_at > LOOK_SECONDS:
            self._looked_at = now
            self._look()
        return _true_time() + self._offset

    def time_ns(self) -> int:
        """Stand in for `time.time_ns`."""
        return int(self.time() * 1e9)

    def _look(self) -> None:
        try:
            offset = float(self._path.read_text())
        except (OSError, ValueError):  # it is being written
            return
        if offset != self._offset:
            self._offset = offset
            felt_in(self._path).write_text(f"{offset}")


def felt_in(path: Path) -> Path:
    """Return the file in which a process says which offset it goes by."""
    return path.with_suffix(".felt")


def install() -> None:
    """Have this process go by the clock that the environment names, if it names one."""
    if CLOCK in os.environ:
        clock = Clock(Path(os.environ[CLOCK]))
        time.time, time.time_ns = clock.time, clock.time_ns

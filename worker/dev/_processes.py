"""Finding and ending the processes of an earlier run, and no others.

A pid from a file proves nothing: pids are used again. What tells a process as ours is a mark in its command
line that is drawn at random for each folder (see `Server.mark`).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

__all__ = ["end", "exists", "goes_on", "handle", "kill_tree"]

POLL_SECONDS = 0.01
# A killed process goes when the kernel gets to it; a longer wait would be a disk that hangs.
KILL_SECONDS = 30.0


def exists(pid: int) -> bool:
    """Whether any process has that pid, a zombie included."""
    return psutil.pid_exists(pid)


def handle(pid: int) -> psutil.Process | None:
    """The process with that pid now, told by its creation time from a later one; None if it is gone."""
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def goes_on(process: psutil.Process) -> bool:
    """Whether that very process still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end(mark: str, program: Path, stop_signal: signal.Signals, seconds: float) -> list[int]:
    """Stop what carries `mark`: cleanly within `seconds`, by SIGKILL after. Returns whom it found."""
    heads, children = _marked(mark, program)
    found = [*heads, *children]
    for process in heads:
        _signal(process, stop_signal)
    # Children without a head are backends whose postmaster was killed; nobody can stop those cleanly.
    left = _wait_gone(found, seconds if heads else 0.0)
    deadline = time.monotonic() + KILL_SECONDS
    while left and time.monotonic() < deadline:
        for process in left:
            _signal(process, signal.SIGKILL)
        _wait_gone(left, KILL_SECONDS)
        left = [process for group in _marked(mark, program) for process in group]  # forked since, if any
    return [process.pid for process in found]


def kill_tree(root: psutil.Process) -> None:
    """SIGKILL `root` and all that descend from it, and wait until they are gone.

    Not by process group: each child of Postgres makes a session of its own.
    """
    with suppress(psutil.NoSuchProcess):
        root.suspend()  # so that it forks nothing between the listing and the killing
        tree = [root, *root.children(recursive=True)]
        for process in tree:
            _signal(process, signal.SIGKILL)
        _wait_gone(tree, KILL_SECONDS)


def _marked(mark: str, program: Path) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """The processes that carry `mark`: those that a signal stops (servers and keepers), and their children.

    The first carry it as one whole argument. A child of Postgres shows a title instead,
    ``postgres: MARK: walwriter``, and outlives its postmaster's SIGKILL for as long as it is busy.
    """
    heads, children = [], []
    title = f"postgres: {mark.rpartition('=')[2]}: "
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            arguments = process.cmdline()
            if mark in arguments and _is_head(arguments, program):
                heads.append(process)
            elif arguments and arguments[0].startswith(title):
                children.append(process)
    return heads, children


def _is_head(arguments: list[str], program: Path) -> bool:
    # A shell, `timeout` or `strace` with the same argument is somebody else's.
    kept = any(argument.endswith("/_keeper.py") for argument in arguments[:4])
    return kept or Path(arguments[0]).name == program.name


def _signal(process: psutil.Process, signum: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signum)  # psutil compares the creation time first, so never a later process's


def _wait_gone(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait for the end of `processes`, and return those that are left after `seconds`.

    psutil's own wait takes a zombie for a living process, and where process 1 is an application that reaps
    nobody, as in a container, an orphan stays a zombie for good.
    """
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if goes_on(process)]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return left

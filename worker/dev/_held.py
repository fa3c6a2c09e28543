"""What exactly one process may hold: the lock of a folder and the lifelines of its keepers.

Both end with the process because the kernel closes its descriptors. A child forked without exec (multiprocessing,
Celery's prefork) would hold copies and keep both alive past its parent, hence the hook at the end.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

from worker.dev._errors import FolderInUse
from worker.dev._processes import exists

__all__ = ["FolderLock", "Kept"]

KEEPER = Path(__file__).with_name("_keeper.py")
# Between two locks and the pid that the second holder writes lies less than a millisecond; this is for a stall.
NAME_HOLDER_SECONDS = 2.0
POLL_SECONDS = 0.02

_descriptors: set[int] = set()


class FolderLock:
    """Exclusive use of a folder by one process at a time.

    An flock on a file that is never deleted: the kernel lets go when the holder dies, so a crash leaves
    nothing behind, and the pid inside is only for the message.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock; does nothing if this object has it.

        Raises:
            FolderInUse: If another holder has it, in this process or another.
        """
        if self._descriptor is not None:
            return
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._take(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        _descriptors.add(descriptor)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go; does nothing if this object does not have it."""
        if self._descriptor is not None:
            _descriptors.discard(self._descriptor)
            # Closing would not do: a child that another thread starts just now has a copy until it comes to its exec.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None

    def _take(self, descriptor: int) -> None:
        deadline = time.monotonic() + NAME_HOLDER_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # The pid may still be that of a dead holder, until the living one has written its own.
                holder = os.pread(descriptor, 32, 0).decode().strip()
                known = holder.isdecimal() and exists(int(holder))
                if known or time.monotonic() > deadline:
                    raise FolderInUse(self.path.parent.parent, int(holder) if known else None) from None
                time.sleep(POLL_SECONDS)
            else:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                return


class Kept:
    """One command under a keeper of its own (see `_keeper.py`), started by making this object.

    Attributes:
        pid: The command's own process; 0 where it never came to be, for a reason that is in its log.
        log_start: Where in the log this run begins, bytes.
    """

    def __init__(
        self, command: Sequence[str], *, home: Path, stops: str, log_path: Path, environ: dict[str, str]
    ) -> None:
        """Start `command` in `home`; `stops` is ``signal:seconds,…``, tried in turn before SIGKILL."""
        with log_path.open("ab") as log:
            self.log_start = log.tell()
            self._keeper = subprocess.Popen(  # noqa: S603  our own interpreter and script
                # Isolated and without site: the standard library is all it needs, and site is a quarter of its start.
                [sys.executable, "-I", "-S", str(KEEPER), str(home), stops, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=home,
                env=environ,
                # A terminal's Ctrl-C goes to the whole group, and would stop the servers before we ask them.
                start_new_session=True,
            )
        # Popen types its pipes as optional; both were asked for.
        self._lifeline, report = cast("IO[bytes]", self._keeper.stdin), cast("IO[bytes]", self._keeper.stdout)
        try:
            _descriptors.add(self._lifeline.fileno())
            with report:
                self.pid = int(report.readline() or 0)
        except BaseException:  # Ctrl-C while waiting for the pid
            self.let_go()
            raise

    def let_go(self) -> None:
        """Ask for the command's end, as this process's death would; does not wait."""
        if not self._lifeline.closed:
            _descriptors.discard(self._lifeline.fileno())
            self._lifeline.close()

    def wait(self, seconds: float) -> int | None:
        """The keeper's exit code, 128 + n where the command died of signal n; None if it goes on."""
        try:
            return self._keeper.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End a keeper that does not end by itself; what it kept is the caller's to find."""
        self.let_go()
        self._keeper.kill()
        self._keeper.wait()


def _let_go_in_child() -> None:
    """Give up what only the parent may hold, by number: objects here still own the numbers and will close them."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in _descriptors:
        os.dup2(null, descriptor, inheritable=False)
    _descriptors.clear()
    os.close(null)


os.register_at_fork(after_in_child=_let_go_in_child)

"""Run one command for as long as the process that asked for it lives.

    python -m worker.dev._lifeline COMMAND…

Standard input is the lifeline: a pipe whose other end only the asking process holds. The kernel closes it however that
process dies, and the command is asked to end. Without this, a worker of a demo that was killed would live on, and take
the next demo's jobs with the addresses of the last one's services.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE_SECONDS = 10.0


def main(command: list[str]) -> int:
    """Run `command` until it ends, or the lifeline does; return its exit status."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603  what the asking process named
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda number, _: child.send_signal(number))
    threading.Thread(target=_watch, args=(child,), daemon=True).start()
    return child.wait()


def _watch(child: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        while os.read(0, 64):
            pass
    child.terminate()
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

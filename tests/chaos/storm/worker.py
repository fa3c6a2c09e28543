"""A worker of a storm: Celery's own command, with a wall clock that may jump.

    python -m tests.chaos.storm.worker -A worker.app worker …

Where its standard input ends, the harness is gone, and the worker goes with all that it started.
"""

from __future__ import annotations

from tests.chaos.storm import clock

clock.install()  # before Celery takes the functions of the clock by name

import os  # noqa: E402  as above
import signal  # noqa: E402
import threading  # noqa: E402

from celery.__main__ import main  # noqa: E402

STANDARD_INPUT = 0


def _end_with_the_harness() -> None:
    while os.read(STANDARD_INPUT, 1):  # not `sys.stdin`, whose lock a forked child would find taken
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_harness, daemon=True).start()
    main()

"""Dying where one is told to: the places of an accept's way at which a process of a storm may kill itself.

Importing this puts them in. A line on standard input is an order: ``die accept.before``, ``die accept.committed``,
``die ring.before`` or ``die ring.between`` (some messages of several are out) has the process kill itself where it next
comes there; ``stop`` has it end in good order. Where that input ends without an order, the harness is gone, and the
process goes at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any

from producer import ring
from producer.ledger import single
from producer.ring import Bell, Ring

_point: str | None = None


def obey(stop: Callable[[], None]) -> None:
    """Hear orders from now on, in a thread of their own; `stop` is called for the one that ends it."""
    threading.Thread(target=_obey, args=(stop,), name="orders", daemon=True).start()


def _obey(stop: Callable[[], None]) -> None:
    global _point  # noqa: PLW0603  one process, one way to die
    for line in sys.stdin:
        if line.startswith("die "):
            _point = line.removeprefix("die ").strip()
        elif line.startswith("stop"):
            stop()
            return
    os._exit(1)


def _die(point: str) -> None:
    if _point == point:
        os.kill(os.getpid(), signal.SIGKILL)


def _deadly(function: Callable[..., Any], before: str, after: str = "") -> Callable[..., Any]:
    @wraps(function)
    def run(*args: Any, **how: Any) -> Any:
        _die(before)
        answer = function(*args, **how)
        _die(after)
        return answer

    return run


def _deadly_between(messages: Callable[[Iterable[Ring]], Iterator[Sequence[Ring]]]) -> Callable[..., Any]:
    @wraps(messages)
    def run(rings: Iterable[Ring]) -> Iterator[Sequence[Ring]]:
        for number, message in enumerate(messages(rings)):
            if number:  # asked for once the one before it is out
                _die("ring.between")
            yield message

    return run


for _name in ("accept", "accept_together"):
    setattr(single, _name, _deadly(getattr(single, _name), "accept.before", "accept.committed"))
# Places in the product's own code.
setattr(Bell, "_publish", _deadly(Bell._publish, "ring.before"))  # noqa: B010, SLF001
setattr(ring, "_messages", _deadly_between(ring._messages))  # noqa: B010, SLF001

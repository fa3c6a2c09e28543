"""Where a worker of the policies' tests dies: loaded as a module of actions, it wraps the writer's own statements.

``POLICY_DIES`` names the place, `review`, `ask` or `consume`, before its commit or after it. Only who has not died
there yet does, which a file says.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import worker.writer

STATEMENTS = {"review": "review", "ask": "settle_with", "consume": "intend_approved"}


def _die() -> None:
    died = Path(os.environ["POLICY_DIED"])
    if not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _dying(write: Callable[..., Any], place: str) -> Callable[..., Any]:
    @wraps(write)
    def run(*args: Any, **named: Any) -> Any:
        if place == "before":
            _die()
        answer = write(*args, **named)
        _die()
        return answer

    return run


_statement, _, _place = os.environ["POLICY_DIES"].partition(".")
_name = STATEMENTS[_statement]
setattr(worker.writer, _name, _dying(getattr(worker.writer, _name), _place))

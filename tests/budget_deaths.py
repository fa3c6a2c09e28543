"""Where a worker of the budgets' tests dies: loaded as a module of actions, it wraps the writer's own statements.

``BUDGET_DIES`` names the place. Only who has not died there yet does, which a file says.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import worker.writer

STATEMENTS = {"reserve": "intend_reserving", "settle": "settle_spending"}


def _die() -> None:
    died = Path(os.environ["BUDGET_DIED"])
    if not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _dying(write: Callable[..., Any], place: str) -> Callable[..., Any]:
    @wraps(write)
    def run(*args: Any) -> Any:
        if place == "before":
            _die()
        answer = write(*args)
        _die()
        return answer

    return run


_statement, _, _place = os.environ["BUDGET_DIES"].partition(".")
_name = STATEMENTS[_statement]
setattr(worker.writer, _name, _dying(getattr(worker.writer, _name), _place))

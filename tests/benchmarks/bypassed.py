"""The app of a worker with parts out of the way: those that bypass.py's variables name, with commas in between.

A worker finds `app` by ``-A tests.benchmarks.bypassed``.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.benchmarks.bypass import SWITCH, SWITCHED, WITHOUT, bypass, switch


def _named(variable: str) -> list[str]:
    return [name for name in os.environ.get(variable, "").split(",") if name]


bypass(_named(WITHOUT))
if _named(SWITCHED):
    switch(_named(SWITCHED), Path(os.environ[SWITCH]))

from worker.app import app  # noqa: E402  what it makes its parts of is out of the way by now

__all__ = ["app"]

"""The app of a worker with parts out of the way: those that `BENCH_WITHOUT` names, with commas in between.

A worker finds `app` by ``-A tests.benchmarks.bypassed``.
"""

from __future__ import annotations

import os

from tests.benchmarks.bypass import WITHOUT, bypass

bypass(filter(None, os.environ.get(WITHOUT, "").split(",")))

from worker.app import app  # noqa: E402  what it makes its parts of is out of the way by now

__all__ = ["app"]

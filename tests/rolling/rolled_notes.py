"""What the actions of both builds do: leave a line behind, and wait. Loaded by its name alone."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import tasks
from tasks import Context


def note(ctx: Context, log: str, meant: str) -> None:
    """Leave a line behind: for which job, what was done, and by whose code."""
    code = str(Path(tasks.__file__).parents[1])
    line = json.dumps({"job": str(ctx.job_id), "meant": meant, "code": code, "pid": os.getpid()})
    with Path(log).open("a") as book:
        book.write(f"{line}\n")


async def opened(gate: str) -> None:
    """Wait for a file."""
    while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240  the file is a test's
        await asyncio.sleep(0.01)

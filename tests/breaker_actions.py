"""Actions whose dependency a test can break, loaded by workers as a user's own module would be."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Literal

from tasks import Context, Dependency, Hold, Refused, Retry, action

RECOVERY_SECONDS = 0.6
SHAKY = Dependency(name="shaky", recovery_seconds=RECOVERY_SECONDS, release_per_second=50)
# Long enough that nothing of it ends by itself during a test.
DOWN = Dependency(name="down", recovery_seconds=300)

Say = Literal["retry", "retry later", "refused", "hold", "value"]


def _call(log: str, ctx: Context) -> None:
    """Fail while there is a file that says so; leave a line behind for each call."""
    line = json.dumps({"job": str(ctx.job_id), "pid": os.getpid(), "at": time.time()})
    with Path(log).open("a") as book:
        book.write(f"{line}\n")
    if Path(f"{log}.broken").exists():
        raise Retry("it is broken")


@action("shaky.call", effect="pure", dependency=SHAKY, max_retries=None, retry_backoff=0.01, retry_backoff_max=0.05)
async def call(log: str, ctx: Context, seconds: float = 0.0) -> str:
    """Call what a test breaks by a file."""
    _call(log, ctx)
    await asyncio.sleep(seconds)
    return "done"


@action("shaky.once", effect="pure", dependency="shaky", max_retries=0)
async def once(log: str, ctx: Context) -> str:
    """Call it, and be dead where that fails."""
    _call(log, ctx)
    return "done"


@action("shaky.wait", effect="pure", dependency="shaky", max_retries=0)
async def wait(log: str, ctx: Context) -> str:
    """Call it, and wait for a file."""
    _call(log, ctx)
    while not Path(f"{log}.gate").exists():  # noqa: ASYNC110, ASYNC240  the file is a test's
        await asyncio.sleep(0.01)
    return "done"


@action("down.call", effect="pure", dependency="down", max_retries=0)
async def down(say: Say) -> str:
    """Say something of a dependency that stays open for long."""
    kinds: dict[Say, Exception] = {
        "retry": Retry("no"),
        "retry later": Retry("no", after=3_600),
        "refused": Refused("no"),
        "hold": Hold("no", after=0.1),
    }
    if say in kinds:
        raise kinds[say]
    return say


@action("down.or_else", effect="pure", dependency=DOWN, max_retries=0, fallback="instead")
async def or_else(say: Say) -> str:
    """Call the same, with something that stands in."""
    return await down(say)


@action("down.or_wait", effect="pure", dependency="down", max_retries=0, fallback="instead", on_open="hold")
async def or_wait(say: Say) -> str:
    """Call the same; what stands in does so only for what failed."""
    return await down(say)


@action("down.narrow", effect="pure", dependency="down", max_retries=0, fleet_concurrency=1)
async def narrow(say: Say) -> str:
    """Call the same, one at a time in the whole fleet."""
    return await down(say)


class Neutral(Retry):
    """What says nothing of whom was called."""


@action("quiet.call", effect="pure", dependency=Dependency(name="quiet", exclude=(Neutral,)), max_retries=0)
async def quiet() -> None:
    """Raise what is excluded."""
    raise Neutral("no")


@action("sleepy.call", effect="pure", max_retries=0, timeout=60)
async def sleepy() -> None:
    """Take longer than any job's deadline in the tests."""
    await asyncio.sleep(60)


@action("drowsy.call", effect="pure", max_retries=0, timeout=1)
async def drowsy() -> None:
    """Take longer than it may."""
    await asyncio.sleep(60)


@action("model.call", effect="pure", dependency=Dependency(name="model", recovery_seconds=300, per=("tenant", "model")))
async def model(model: str, *, fails: bool) -> str:
    """Call a model; each tenant's has a breaker of its own."""
    if fails:
        raise Refused("no") if model == "neutral" else Retry("no")
    return model


@action("model.one", effect="pure", dependency="model", fleet_concurrency=1)
async def model_one(model: str, gate: str) -> str:
    """Call the same, one at a time in the whole fleet, and wait for a file."""
    while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240  the file is a test's
        await asyncio.sleep(0.01)
    return model


@action("down.one", effect="pure", dependency="down", fleet_concurrency=1, fallback="instead")
async def down_one(gate: str) -> str:
    """Call what a person says is down, one at a time, with something that stands in."""
    return await model_one("down", gate)

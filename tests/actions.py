"""Actions for the tests, loaded by their workers as a user's own module would be."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from producer.trace import current_traceparent
from tasks import Context, Hold, Refused, Retry, Unknown, action
from tests.unbroken import unbroken
from worker.log import attempt_ids

unbroken("test", "patience", "http 127.0.0.1", "http localhost", "email", "llm")


class Total(BaseModel):
    """A typed result."""

    total: int


@action("test.add", effect="pure")
def add(a: int, b: int) -> Total:
    """Add two numbers."""
    return Total(total=a + b)


@action("test.echo", effect="pure")
def echo(value: Any) -> Any:
    """Return what came."""
    return value


@action("test.fail", effect="pure", max_retries=3, retry_backoff=0.05)
def fail(times: int, ctx: Context, message: str = "not yet") -> int:
    """Fail the first attempts; return the number of the one that did not."""
    if ctx.attempt <= times:
        raise Retry(message)
    return ctx.attempt


@action("test.fail_async", effect="pure", max_retries=3, retry_backoff=0.05)
async def fail_async(times: int, ctx: Context) -> int:
    """Fail the first attempts, as a coroutine."""
    await asyncio.sleep(0)
    if ctx.attempt <= times:
        raise ValueError(f"attempt {ctx.attempt} of {times} to fail")
    return ctx.attempt


@action("test.raise", effect="pure", max_retries=0)
def raise_(kind: str) -> int:
    """Raise what is named."""
    kinds: dict[str, BaseException] = {
        "refused": Refused("no, and that is final"),
        "unknown": Unknown("the line went dead"),
        "hold": Hold("too many", after=0.05),
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "cancelled": asyncio.CancelledError(),
        "secret": ValueError("password=hunter2secret and Bearer abcdef0123456789"),
        "recursion": RecursionError("too deep"),
    }
    raise kinds[kind]


@action("test.hold", effect="pure", max_retries=0, dependency="patience")
def hold(times: int, log: str, ctx: Context) -> int:
    """Ask for patience the first times; the log's lines count the calls, since a hold spends no attempt."""
    calls = _append(log, ctx)
    if calls <= times:
        raise Hold("too many requests", after=0.1)
    return calls


@action("test.effect", effect="unsafe")
def effect(log: str, ctx: Context, wait_for: str | None = None) -> int:
    """Leave a line behind; then wait for a file, if one is named."""
    calls = _append(log, ctx)
    while wait_for is not None and not Path(wait_for).exists():
        time.sleep(0.01)
    return calls


@action("test.keyed", effect="keyed", key_ttl=3600, retry_backoff=0.05)
def keyed(log: str, ctx: Context, *, die: bool = False) -> int:
    """Leave a line behind with the downstream key; die after the first, if asked to."""
    calls = _append(log, ctx)
    if die and calls == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return calls


@action("test.unsafe_unknown", effect="unsafe")
def unsafe_unknown() -> int:
    """Vanish without a word after the effect may have happened."""
    raise Unknown("no answer")


@action("test.slow", effect="pure", timeout=0.3, max_retries=0)
async def slow(seconds: float) -> str:
    """Take longer than allowed."""
    await asyncio.sleep(seconds)
    return "done"


@action("test.slow_sync", effect="pure", timeout=0.3, max_retries=0)
def slow_sync(seconds: float) -> str:
    """Take longer than allowed, in a thread."""
    time.sleep(seconds)
    return "done"


@action("test.lie", effect="pure", max_retries=1, retry_backoff=0.01)
def lie() -> int:
    """Return what the declared type refuses."""
    return "not a number"  # type: ignore[return-value]  # the point


@action("test.lie_unsafe", effect="unsafe")
def lie_unsafe() -> int:
    """Return what the declared type refuses, after an effect."""
    return "not a number"  # type: ignore[return-value]  # the point


@action("test.unwritable", effect="pure", max_retries=0)
def unwritable() -> Any:
    """Return what JSON cannot hold."""
    return float("nan")


@action("test.trace", effect="pure")
async def trace(ctx: Context) -> dict[str, str]:
    """Return what the attempt knows of its trace."""
    ctx.log.info("test.traced")
    bound = attempt_ids.get()
    return {**bound, "attempt": str(bound["attempt"]), "current": current_traceparent.get(), **ctx.headers()}


@action("test.trace_sync", effect="pure")
def trace_sync(ctx: Context) -> dict[str, str]:
    """Return what the attempt knows of its trace, from a thread."""
    bound = attempt_ids.get()
    return {**bound, "attempt": str(bound["attempt"]), "current": current_traceparent.get(), **ctx.headers()}


@action("test.python", effect="pure")
def python() -> str:
    """Return the interpreter's version."""
    return sys.version


@action("test.nap", effect="pure")
def nap(seconds: float) -> None:
    """Keep a thread to itself for a while."""
    time.sleep(seconds)


@action("test.spared", effect="pure")
def spared() -> int:
    """Return how many objects a full collection does not look at in this process."""
    return gc.get_freeze_count()


@action("test.costly", effect="pure", max_retries=3, retry_backoff=0.01)
async def costly(ctx: Context) -> None:
    """Pay a model in each attempt, for nothing but in the last."""
    ctx.used(tokens_in=10, tokens_out=2, cost_usd=Decimal("0.0015"))
    if ctx.attempt <= 2:
        raise Retry("not yet")


@action("test.rated", effect="pure", rate_limit="40/s")
async def rated(log: str, ctx: Context) -> int:
    """Leave a line behind, forty times a second."""
    return _append(log, ctx)


@action("test.rated_slowly", effect="pure", rate_limit="40/m")
async def rated_slowly(log: str, ctx: Context) -> int:
    """Leave a line behind, so seldom that whoever is over it waits for as long as somebody takes to look."""
    return _append(log, ctx)


@action("test.narrow", effect="pure", fleet_concurrency=2)
async def narrow(log: str) -> None:
    """Say when it begins and ends, two at a time in the whole fleet."""
    _mark(log, 1)
    await asyncio.sleep(0.02)
    _mark(log, -1)


@action("test.narrow_until", effect="pure", fleet_concurrency=2)
async def narrow_until(there: str) -> None:
    """Run until a file is there, two at a time in the whole fleet."""
    while not await asyncio.to_thread(Path(there).exists):  # noqa: ASYNC110  another process makes it
        await asyncio.sleep(0.02)


@action("test.narrow_here", effect="pure", max_concurrency=2)
async def narrow_here(log: str) -> None:
    """Say when it begins and ends, two at a time in each process."""
    await narrow(log)


def _append(log: str, ctx: Context) -> int:
    """Add a line to the log and return how many this job has by now."""
    line = {"job": str(ctx.job_id), "key": ctx.downstream_key(), "attempt": ctx.attempt, "pid": os.getpid()}
    with Path(log).open("a") as file:
        file.write(json.dumps(line) + "\n")
    return sum(json.loads(each)["job"] == str(ctx.job_id) for each in Path(log).read_text().splitlines())


def _mark(log: str, change: int) -> None:
    with Path(log).open("a") as file:
        file.write(json.dumps({"at": time.monotonic(), "change": change, "pid": os.getpid()}) + "\n")


@action("test.spend", effect="pure")
async def spend(tokens_in: int, tokens_out: int, cost: str, ctx: Context) -> None:
    """Say what a model call would have used."""
    ctx.used(tokens_in=tokens_in, tokens_out=tokens_out, cost_usd=Decimal(cost))

"""Actions for the tests of the pool and its rings: many at a time, ill-mannered, and ending as they are told."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, field_validator

from tasks import Context, EffectClass, Refused, Retry, action
from tests.unbroken import unbroken
from worker.log import attempt_ids

unbroken("pool")

LOOK_SECONDS = 0.05
DAWDLE_SECONDS = 0.1

marked: ContextVar[str] = ContextVar("marked", default="nobody's")


def _effect_by_params(params: Mapping[str, Any]) -> EffectClass:
    return EffectClass(params.get("effect", "pure"))


@action("pool.wait", effect=_effect_by_params, max_retries=50, retry_backoff=0.01, retry_backoff_max=0.1)
async def wait(log: str, gate: str, ctx: Context, effect: str = "pure") -> str:  # noqa: ARG001  for the worker
    """Leave a line behind, wait for a file, and leave another."""
    _note(log, ctx, "began")
    await _opened(gate)
    _note(log, ctx, "ended")
    return "done"


@action("pool.wait_sync", effect=_effect_by_params, max_retries=50, retry_backoff=0.01, retry_backoff_max=0.1)
def wait_sync(log: str, gate: str, ctx: Context, effect: str = "pure") -> str:  # noqa: ARG001  for the worker
    """Do the same in a thread."""
    _note(log, ctx, "began")
    while not Path(gate).exists():
        time.sleep(LOOK_SECONDS)
    _note(log, ctx, "ended")
    return "done"


@action("pool.wait_in_executor", effect="pure", max_retries=50, retry_backoff=0.01, retry_backoff_max=0.1)
async def wait_in_executor(log: str, gate: str, ctx: Context) -> str:
    """Do the same in a thread of asyncio's own."""
    return await asyncio.to_thread(wait_sync, log, gate, ctx)


@action("pool.outlive", effect="pure", timeout=1, max_retries=0)
def outlive(log: str, gate: str, ctx: Context) -> str:
    """Wait in a thread for longer than allowed."""
    return wait_sync(log, gate, ctx)


@action("pool.overhear", effect="pure", timeout=1, max_retries=0)
async def overhear(log: str, gate: str, ctx: Context) -> str:
    """Wait for longer than allowed, and overhear every word to stop."""
    return await ignore(log, gate, ctx)


@action("pool.ignore", effect="pure", max_retries=50, retry_backoff=0.01, retry_backoff_max=0.1)
async def ignore(log: str, gate: str, ctx: Context) -> str:
    """Wait for a file, and ignore every word to stop."""
    _note(log, ctx, "began")
    while not Path(gate).exists():  # noqa: ASYNC240  microseconds
        try:
            await _opened(gate)
        except asyncio.CancelledError:
            _note(log, ctx, "overheard")
    _note(log, ctx, "ended")
    return "done"


@action("pool.tidy_up", effect="pure", timeout=1, max_retries=0)
async def tidy_up(log: str, gate: str, ctx: Context) -> str:
    """Wait for longer than allowed, and take a moment to end."""
    try:
        await _opened(gate)
    finally:
        await asyncio.sleep(LOOK_SECONDS)
        _note(log, ctx, "tidied up")
    return "done"


@action("pool.block", effect="pure")
async def block(log: str, gate: str, ctx: Context) -> str:
    """Keep the event loop to itself until there is a file."""
    return wait_sync(log, gate, ctx)


@action("pool.count", effect="idempotent")
async def count(log: str, ctx: Context, gate: str | None = None) -> str:
    """Leave a line behind; then wait for a file, if one is named."""
    _note(log, ctx, "began")
    if gate is not None:
        await _opened(gate)
    return "done"


@action("pool.remember", effect="pure")
async def remember(mark: str, ctx: Context) -> dict[str, str]:
    """Bind a context variable, let others run, and say what is bound then."""
    before = marked.get()
    marked.set(mark)
    await asyncio.sleep(LOOK_SECONDS)
    ctx.log.info("pool.remembered", mark=mark)
    return _bound(before) | {"in_a_thread": await asyncio.to_thread(marked.get)}


@action("pool.remember_sync", effect="pure")
def remember_sync(mark: str, ctx: Context) -> dict[str, str]:
    """Do the same in a thread."""
    before = marked.get()
    marked.set(mark)
    time.sleep(LOOK_SECONDS)
    ctx.log.info("pool.remembered", mark=mark)
    return _bound(before) | {"in_a_thread": marked.get()}


@action("pool.end", effect="pure", max_retries=1, retry_backoff=600, retry_jitter=False)
async def end(way: str) -> Any:
    """End as told: well, with a retry in a while, refused, or with what JSON cannot hold."""
    match way:
        case "retry":
            raise Retry("not yet")
        case "refused":
            raise Refused("never")
        case "unwritable":
            return object()
        case _:
            return way


class Unprintable(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise ValueError("no words")


class Exiting(Exception):
    """An error that ends the process of whoever prints it."""

    def __str__(self) -> str:
        raise SystemExit(4)


@action("pool.raise", effect=_effect_by_params, max_retries=0)
async def raise_(kind: str, effect: str = "pure") -> int:  # noqa: ARG001  for the worker
    """Raise what is named, on the loop."""
    await asyncio.sleep(0)
    if kind == "exit in a task":
        await asyncio.create_task(raise_("exit"))
    _raise(kind)


@action("pool.raise_sync", effect=_effect_by_params, max_retries=0)
def raise_sync(kind: str, effect: str = "pure") -> int:  # noqa: ARG001  for the worker
    """Raise what is named, in a thread."""
    _raise(kind)


class Touchy(BaseModel):
    """Params, and a result, whose check may end the process, as an author's validator may try to."""

    way: str

    @field_validator("way")
    @classmethod
    def _check(cls, way: str) -> str:
        if way == "exit":
            raise SystemExit(5)
        return way


def _touchy_effect(params: Mapping[str, Any]) -> EffectClass:
    if params["way"] == "exit":
        raise SystemExit(6)
    return EffectClass.PURE


@action("pool.touchy_effect", effect=_touchy_effect, max_retries=0)
async def touchy_effect(way: str) -> str:
    """Return what was given, if the rule that says the effect class lets it."""
    return way


def _slow_to_say(_params: Mapping[str, Any]) -> EffectClass:
    time.sleep(DAWDLE_SECONDS * 2)
    return EffectClass.UNSAFE


@action("pool.dawdle", effect=_slow_to_say, timeout=DAWDLE_SECONDS, max_retries=1, retry_backoff=0.01)
async def dawdle(log: str, gate: str, ctx: Context) -> str:  # noqa: ARG001  for the worker
    """Have no time left as it begins."""
    _note(log, ctx, "began")
    return "done"


@action("pool.touchy_params", effect="pure", max_retries=0)
async def touchy_params(given: Touchy) -> str:
    """Return what was given."""
    return given.way


@action("pool.touchy_result", effect="pure", max_retries=0)
async def touchy_result(way: str) -> Touchy:
    """Return what was given, to be checked on its way out."""
    return {"way": way}  # type: ignore[return-value]  # the worker makes it one


async def _opened(gate: str) -> None:
    while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240  another process opens it; a look takes microseconds
        await asyncio.sleep(LOOK_SECONDS)


def _raise(kind: str) -> NoReturn:
    if kind == "endless recursion":
        _raise(kind)
    kinds: dict[str, BaseException] = {
        "exit": SystemExit(3),
        "exit in a task": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "cancelled": asyncio.CancelledError(),
        "generator exit": GeneratorExit(),
        "memory": MemoryError("none left"),
        "stop": StopIteration(7),
        "unprintable": Unprintable(),
        "exiting": Exiting(),
        "group": BaseExceptionGroup("several", [SystemExit(1), ValueError("one of them")]),
    }
    raise kinds[kind]


def _bound(before: str) -> dict[str, str]:
    return {"before": before, "mark": marked.get(), "job": attempt_ids.get()["job_id"]}


def _note(log: str, ctx: Context, what: str) -> None:
    """Add a line to a file, in one write: many jobs do so at the same time."""
    thread = threading.current_thread().ident
    line = {"job": str(ctx.job_id), "what": what, "attempt": ctx.attempt, "pid": os.getpid(), "thread": thread}
    with Path(log).open("a") as file:
        file.write(json.dumps(line) + "\n")

"""Actions for the tests of follow-ups: they ask for others, and end as they are told."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks import Context, EffectClass, Happened, Retry, action
from tests.unbroken import unbroken

unbroken("follow")

# What a producer could not even say in the params of a job.
HOSTILE: dict[str, dict[str, Any]] = {
    "unknown": {"action": "test.ad"},
    "no name": {"action": None},
    "params": {"action": "test.add", "params": {"a": "one", "b": 0}},
    "no json": {"action": "test.add", "params": {"a": object(), "b": 0}},
    "key": {"action": "test.add", "params": {"a": 1, "b": 0}, "idempotency_key": "with spaces"},
    "surrogate": {"action": "test.add", "params": {"a": 1, "b": 0}, "reasoning": "\ud800"},
    "nul": {"action": "test.add", "params": {"a": 1, "b": 0}, "input": "\x00"},
    "large": {"action": "test.fail", "params": {"times": 0, "message": "x" * (1 << 21)}},
}


def _effect_by_params(params: Mapping[str, Any]) -> EffectClass:
    return EffectClass(params.get("effect", "pure"))


def _found(ctx: Context) -> Happened:
    return Happened(ctx.attempt)


@action(
    "follow.plan",
    effect=_effect_by_params,
    key_ttl=3600,
    retry_backoff=0.01,
    verify=_found,
    verify_after=0.1,
    verify_every=0.1,
)
async def plan(
    requests: list[dict[str, Any]],
    ctx: Context,
    fail: int = 0,
    effect: str = "pure",  # noqa: ARG001  for the worker
) -> int:
    """Ask for what is named; then fail the first attempts. Returns the number of the one that did not."""
    for request in requests:
        ctx.enqueue(**request)
    if ctx.attempt <= fail:
        raise Retry("not yet")
    return ctx.attempt


@action("follow.plan_sync", effect="pure")
def plan_sync(requests: list[dict[str, Any]], ctx: Context) -> int:
    """Ask for what is named, from a thread."""
    for request in requests:
        ctx.enqueue(**request)
    return ctx.attempt


@action("follow.hostile", effect="pure")
async def hostile(kind: str, ctx: Context) -> str:
    """Ask for something good, and for something that cannot be accepted."""
    ctx.enqueue("test.add", {"a": 1, "b": 1})
    ctx.enqueue(**HOSTILE[kind])
    return "done"


@action("follow.too_many", effect="pure", max_retries=0)
async def too_many(ctx: Context) -> str:
    """Ask for more than an attempt may."""
    for number in range(1_001):
        ctx.enqueue("test.add", {"a": number, "b": 1})
    return "done"


@action("follow.die", effect="keyed", key_ttl=3600)
def die(mark: str, ctx: Context) -> int:
    """Ask for a sum; end the process, but for the second time."""
    ctx.enqueue("test.add", {"a": ctx.attempt, "b": 0})
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return ctx.attempt


@action("follow.countdown", effect="pure")
async def countdown(left: int, ctx: Context) -> int:
    """Have the next number follow, down to 0."""
    if left:
        ctx.enqueue("follow.countdown", {"left": left - 1})
    return left


@action("follow.say", effect="pure", conversation="talk")
async def say(requests: list[dict[str, Any]], talk: str, ctx: Context) -> int:
    """Ask for what is named, and say which attempt this is."""
    await plan(requests, ctx)
    if ctx.conversation is None:
        raise ValueError(f"this is no turn of {talk}")
    ctx.conversation.append("user", f"attempt {ctx.attempt}")
    return ctx.attempt

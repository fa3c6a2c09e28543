"""Actions for the tests of conversations: turns that note when they begin and end, and end as they are told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks import Context, EffectClass, Retry, Turn, Unknown, action
from tests.unbroken import unbroken

unbroken("talk")

LOOK_SECONDS = 0.02
# What cannot be said, by name.
UNSPEAKABLE: dict[str, dict[str, Any]] = {
    "role": {"role": "narrator", "content": "meanwhile"},
    "no role": {"role": None, "content": "meanwhile"},
    "no text": {"role": "user", "content": b"bytes"},
    "nul": {"role": "user", "content": "a\x00b"},
    "surrogate": {"role": "user", "content": "\ud800"},
    "large": {"role": "user", "content": "x" * ((1 << 20) + 1)},
    "tool calls": {"role": "assistant", "content": "", "tool_calls": [object()]},
    "tokens": {"role": "assistant", "content": "", "tokens": -1},
}


def _effect_by_params(params: Mapping[str, Any]) -> EffectClass:
    return EffectClass(params.get("effect", "pure"))


@action(
    "talk.say",
    effect=_effect_by_params,
    key_ttl=3600,
    conversation="conversation_id",
    retry_backoff=0.01,
    max_retries=5,
)
async def say(
    conversation_id: str,
    text: str,
    ctx: Context,
    log: str | None = None,
    gate: str | None = None,
    seconds: float = 0.0,
    fail: int = 0,
    doubt: bool = False,  # noqa: FBT001, FBT002  by name
    effect: str = "pure",  # noqa: ARG001  for the worker
) -> list[str]:
    """Say something and answer it, where the gate is open; return what was said before."""
    turn = _turn(ctx)
    _note(log, conversation_id, text, "began")
    while gate is not None and not Path(gate).exists():  # noqa: ASYNC110, ASYNC240  another process opens it
        await asyncio.sleep(LOOK_SECONDS)
    turn.append("user", text)
    turn.append("assistant", f"re: {text}", tokens=3)
    await asyncio.sleep(seconds)
    _note(log, conversation_id, text, "ended")
    if doubt:
        raise Unknown("no answer")
    if ctx.attempt <= fail:
        raise Retry("not yet")
    return [message.content for message in turn.messages]


@action("talk.die", effect="pure", conversation="conversation_id")
def die(conversation_id: str, mark: str, ctx: Context) -> int:  # noqa: ARG001  for the worker
    """Say something; end the process, but for the second time."""
    _turn(ctx).append("user", f"attempt {ctx.attempt}")
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return ctx.attempt


@action("talk.hostile", effect="pure", conversation="conversation_id", max_retries=0)
async def hostile(conversation_id: str, kind: str, ctx: Context) -> str:  # noqa: ARG001  for the worker
    """Say something good, and something that cannot be kept."""
    turn = _turn(ctx)
    turn.append("user", "good")
    turn.append(**UNSPEAKABLE[kind])
    return "done"


@action("talk.go_on", effect="pure", conversation="conversation_id")
async def go_on(conversation_id: str, left: int, ctx: Context) -> int:
    """Say a number, and have the next turn of the same conversation follow, down to 0."""
    _turn(ctx).append("assistant", str(left), tool_calls=[{"id": "call-1", "type": "function"}])
    if left:
        ctx.enqueue("talk.go_on", {"conversation_id": conversation_id, "left": left - 1})
    return left


@action("talk.maybe", effect="pure", conversation="conversation_id")
async def maybe(ctx: Context, conversation_id: str | None = None) -> bool:  # noqa: ARG001  for the worker
    """Say whether this is a turn."""
    return ctx.conversation is not None


def _turn(ctx: Context) -> Turn:
    if ctx.conversation is None:
        raise ValueError("this is no turn")
    return ctx.conversation


def _note(log: str | None, conversation_id: str, text: str, what: str) -> None:
    if log is not None:
        line = {"conversation": conversation_id, "text": text, "what": what, "pid": os.getpid()}
        with Path(log).open("a") as file:
            file.write(json.dumps(line) + "\n")

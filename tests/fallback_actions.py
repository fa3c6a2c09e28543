"""Actions that have a fallback, each of which goes wrong as it is told to."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tasks import Cause, Context, Happened, Hold, Refused, Retry, Unknown, action
from tests.unbroken import unbroken

unbroken("fallback")


class Price(BaseModel):
    """A typed result."""

    amount: float
    said_by: str


def go_wrong(how: str) -> None:
    """Raise what is named, or nothing."""
    kinds: dict[str, Exception] = {
        "retry": Retry("the shop is closed"),
        "unknown": Unknown("no answer"),
        "refused": Refused("no, and that is final"),
        "hold": Hold("too many", after=30),
    }
    if how in kinds:
        raise kinds[how]


@action("fallback.value", effect="pure", max_retries=1, retry_backoff=0.01, fallback=Price(amount=9.5, said_by="list"))
async def value(how: str = "retry") -> Price:
    """Ask for a price; the list's stands in."""
    go_wrong(how)
    return Price(amount=8.0, said_by="shop")


def from_list(item: str, cause: Cause, ctx: Context, how: str = "well") -> Any:
    """Make a price up, or go wrong as told."""
    match how:
        case "raise":
            raise ValueError("the list is lost")
        case "lie":
            return "free"
        case "hang":
            time.sleep(5)
        case "ask":
            ctx.enqueue("test.add", {"a": 1, "b": 2})
    error = cause.error or {}
    return {"amount": 1.0, "said_by": f"{item} {cause.rule} {error.get('type')} {ctx.attempt}"}


async def from_list_async(item: str, cause: Cause, ctx: Context, how: str = "well") -> Any:
    """Make a price up as a coroutine."""
    if how == "hang":
        await asyncio.sleep(5)
    return from_list(item, cause, ctx, how)


@action("fallback.function", effect="pure", max_retries=0, fallback=from_list, fallback_seconds=2)
async def function(item: str, how: str = "well") -> Price:
    """Never answer."""
    raise Unknown(f"no answer for {item}, {how}")


@action("fallback.function_sync", effect="pure", max_retries=0, fallback=from_list, fallback_seconds=2)
def function_sync(item: str, how: str = "well") -> Price:
    """Never answer, in a thread."""
    raise Unknown(f"no answer for {item}, {how}")


@action("fallback.function_async", effect="pure", max_retries=0, fallback=from_list_async, fallback_seconds=2)
async def function_async(item: str, how: str = "well") -> Price:
    """Never answer; its fallback is a coroutine."""
    raise Unknown(f"no answer for {item}, {how}")


@action("fallback.unsafe", effect="unsafe", max_retries=0, fallback=-1)
async def unsafe(how: str) -> int:
    """Have an effect, perhaps."""
    go_wrong(how)
    return 1


@action("fallback.kept", effect="pure", max_retries=0, fallback=-1, on_exhausted="dead")
async def kept() -> int:
    """Fail, with a fallback that is for other occasions."""
    raise Retry("not now")


@action("fallback.fails", effect="pure", max_retries=0, on_exhausted="fail")
async def fails() -> int:
    """Fail, and be called failed."""
    raise Retry("not now")


@action("fallback.follows", effect="pure", max_retries=0, fallback=-1)
async def follows(ctx: Context) -> int:
    """Ask for a follow-up, and fail."""
    ctx.enqueue("test.add", {"a": 1, "b": 2})
    raise Retry("not now")


async def slowly(begun: str) -> int:
    """Take long, and say so."""
    await asyncio.to_thread(Path(begun).touch)
    await asyncio.sleep(60)
    return -1


@action("fallback.slow", effect="pure", max_retries=0, fallback=slowly, fallback_seconds=60)
async def slow(begun: str) -> int:
    """Fail; the fallback takes long."""
    raise Retry(f"not now, {begun}")


@action("fallback.superseded", effect="keyed", key_ttl=3600, max_retries=0, fallback=-1, supersede=0.2)
async def superseded(log: str, open_at: int = 2, then: str = "well") -> int:
    """Fail before the call with that number, and then go as told; the log's lines count the calls that got so far."""
    calls = await asyncio.to_thread(add_line, log)
    if calls < open_at:
        raise Retry(f"call {calls} comes before {open_at}")
    go_wrong(then)
    return calls


@action("fallback.superseded_unsafe", effect="unsafe", max_retries=0, fallback=-1, supersede=0.2)
async def superseded_unsafe(log: str, open_at: int = 2, then: str = "well") -> int:
    """Do the same, and leave a doubt for a person."""
    return await superseded(log, open_at, then)


@action("fallback.superseded_later", effect="keyed", key_ttl=3600, max_retries=0, fallback=-1, supersede=3)
async def superseded_later(log: str, open_at: int = 2, then: str = "well") -> int:
    """Do the same, with time for somebody to look meanwhile."""
    return await superseded(log, open_at, then)


def found(log: str) -> Happened:
    """Find how often it was called."""
    return Happened(len(Path(log).read_text().splitlines()))


@action(
    "fallback.superseded_looked_up",
    effect="verifiable",
    max_retries=0,
    fallback=-1,
    supersede=0.2,
    verify=found,
    verify_after=0.1,
    verify_every=0.1,
)
async def superseded_looked_up(log: str, open_at: int = 2, then: str = "well") -> int:
    """Do the same, and leave a doubt that is looked up."""
    return await superseded(log, open_at, then)


def add_line(log: str) -> int:
    """Add a line to a log; return how many it has."""
    with Path(log).open("a") as file:
        file.write("called\n")
    return len(Path(log).read_text().splitlines())

"""Actions whose effect can be looked up: transfers, written into a file that is the bank's book."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks import CannotTell, Context, DidNotHappen, Happened, Unknown, action
from tasks._verify import Answer
from tests.unbroken import unbroken

unbroken("verified")

AFTER = 0.3
EVERY = 0.2


def transfer(book: str, ctx: Context, goes: Sequence[str] = ("through",), looks: Sequence[str] = ()) -> int:
    """Make a transfer, each attempt as `goes` has it; return its number in the book.

    ``through``; ``lost``: made, and no answer came; ``astray``: not made, and no answer came; ``die before`` and ``die
    after`` take the worker along.
    """
    del looks  # the hook's
    going = goes[min(ctx.attempt, len(goes)) - 1]
    if going == "die before":
        os.kill(os.getpid(), signal.SIGKILL)
    if going == "astray":
        raise Unknown("the line went dead")
    write(book, {"key": ctx.downstream_key(), "attempt": ctx.attempt})
    if going == "die after":
        os.kill(os.getpid(), signal.SIGKILL)
    if going == "lost":
        raise Unknown("no answer")
    return len(lines(book))


def find(book: str, looks: Sequence[str], ctx: Context) -> Answer:
    """Look a transfer up, each time as `looks` has it, and then truly."""
    looked = len(lines(f"{book}.looks"))
    write(f"{book}.looks", {"key": ctx.downstream_key()})
    said = None if looked >= len(looks) else answer(looks[looked], book, ctx)
    if said is not None:
        return said
    found = [number for number, line in enumerate(lines(book), 1) if line["key"] == ctx.downstream_key()]
    return Happened(found[0]) if found else DidNotHappen()


def answer(look: str, book: str, ctx: Context) -> Answer | None:  # noqa: C901  a word each
    """Go wrong as `look` says, or take as long; None leaves it to the truth."""
    match look:
        case "raise":
            raise ConnectionError("password=hunter2secret was refused")
        case "exit":
            raise SystemExit(3)
        case "hang":
            time.sleep(30)
        case "nonsense":
            return "probably"  # type: ignore[return-value]  # the point
        case "untyped":
            return Happened("a word where a number belongs")
        case "follow":
            ctx.enqueue("test.add", {"a": 1, "b": 2})
            return Happened(1)
        case "busy":
            return CannotTell("the bank is closed")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "wait":
            while not Path(f"{book}.gate").exists():
                time.sleep(0.01)
    return None


async def find_async(book: str, looks: Sequence[str], ctx: Context) -> Answer:
    """Look a transfer up, on the loop."""
    await asyncio.sleep(0)
    return find(book, looks, ctx)


declared: dict[str, Any] = {"verify_after": AFTER, "verify_every": EVERY, "timeout": 1.0, "max_retries": 2}
action("verified.transfer", effect="verifiable", verify=find, **declared)(transfer)
# Who is looked up may be waited for.
action("verified.patiently", effect="verifiable", verify=find, **declared | {"timeout": 20.0})(transfer)


@action("verified.transfer_async", effect="verifiable", verify=find_async, **declared)
async def transfer_async(book: str, ctx: Context, goes: Sequence[str] = ("through",), looks: Sequence[str] = ()) -> int:
    """Make a transfer, on the loop."""
    return transfer(book, ctx, goes, looks)


@action("verified.refused", effect="verifiable", verify=find, **declared)
def transfer_and_follow(book: str, ctx: Context, looks: Sequence[str] = ()) -> int:
    """Make a transfer, and ask for something to follow that nobody knows."""
    ctx.enqueue("nobody.knows", {})
    return transfer(book, ctx, ("through",), looks)


def write(book: str, line: dict[str, Any]) -> None:
    with Path(book).open("a") as file:
        file.write(json.dumps(line) + "\n")


def lines(book: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(book).read_text().splitlines()] if Path(book).exists() else []

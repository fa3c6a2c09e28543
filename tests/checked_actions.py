"""Actions whose results are checked beyond their type, and whose successes are looked up, for their tests alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tasks import CannotTell, Context, DidNotHappen, Happened, action
from tasks._verify import Answer
from tests.unbroken import unbroken
from tests.verified_actions import lines, write

unbroken("checked", "confirmed")


class Bill(BaseModel):
    """A typed result."""

    items: list[int]
    total: int


def adds_up(result: Bill, ctx: Context) -> str | None:
    """Hold the total to the items; and leave marks on what was given, which nobody else may see."""
    total, result.total = result.total, -1
    ctx.log.info("checked", total=total)
    result.items.append(total)
    return None if sum(result.items) == 2 * total else f"the items make {sum(result.items) - total}, not {total}"


async def as_told(result: Bill, check: str = "pass") -> Any:
    """Pass, or not, as told."""
    match check:
        case "raise":
            raise LookupError("the book of prices is lost")
        case "exit":
            raise SystemExit(3)
        case "false":
            return False
        case "hang":
            await asyncio.sleep(60)
    return result.total == result.total or None


def bill(log: str, totals: Sequence[int]) -> Bill:
    """Write down that it was made."""
    with Path(log).open("a") as file:
        file.write("made\n")
    made = len(Path(log).read_text().splitlines())
    return Bill(items=[1, 2], total=totals[min(made, len(totals)) - 1])


checks = (adds_up, as_told)


@action("checked.ask", effect="pure", max_retries=0, max_repairs=1, checks=checks)
async def ask(log: str, ctx: Context, totals: Sequence[int] = (3,), check: str = "pass") -> Bill:
    """Make a bill; asked again, say what was wrong."""
    del check  # the checks'
    if ctx.repair is not None:
        await asyncio.to_thread(Path(f"{log}.told").write_text, ctx.repair.error)
    return await asyncio.to_thread(bill, log, totals)


@action("checked.pay", effect="unsafe", max_retries=5, retry_backoff=0.01, checks=checks)
def pay(log: str, totals: Sequence[int] = (3,), check: str = "pass") -> Bill:
    """Make a bill, which is an effect."""
    del check  # as above
    return bill(log, totals)


def find(book: str, looks: Sequence[str], ctx: Context) -> Answer:
    """Look a transfer up, each time as `looks` has it, and then truly."""
    looked = len(lines(f"{book}.looks"))
    write(f"{book}.looks", {"key": ctx.downstream_key()})
    match looks[looked] if looked < len(looks) else "":
        case "busy":
            return CannotTell("the bank is closed")
        case "raise":
            raise ConnectionError("the bank burns")
        case "miss":
            return DidNotHappen()
    found = [number for number, line in enumerate(lines(book), 1) if line["key"] == ctx.downstream_key()]
    return Happened(found[0]) if found else DidNotHappen()


declared: dict[str, Any] = {"verify": find, "verify_after": 0.2, "verify_every": 0.1, "confirm": True, "timeout": 1.0}


def made(book: str, ctx: Context, *, really: bool) -> int:
    if really:
        write(book, {"key": ctx.downstream_key(), "attempt": ctx.attempt})
    return max(1, len(lines(book)))


@action("confirmed.transfer", effect="verifiable", max_retries=2, **declared)
def transfer(book: str, ctx: Context, looks: Sequence[str] = (), lies: int = 0) -> int:
    """Make a transfer; the first attempts only say that they did."""
    del looks  # the hook's
    return made(book, ctx, really=ctx.attempt > lies)


@action("confirmed.keyed", effect="keyed", key_ttl=3_600, max_retries=2, retry_backoff=0.01, **declared)
async def keyed(book: str, ctx: Context, looks: Sequence[str] = (), lies: int = 0) -> int:
    """Do the same, under a key."""
    del looks  # as above
    return await asyncio.to_thread(made, book, ctx, really=ctx.attempt > lies)

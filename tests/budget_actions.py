"""Actions that cost what they are told to, under budgets of the tests' own; loaded by the budgets' tests only."""

from __future__ import annotations

import asyncio
import os
import signal
from decimal import Decimal
from pathlib import Path
from typing import Any

from tasks import BudgetShort, Context, Cost, Retry, Unknown, action, budget, require_approval, rule
from tests.unbroken import unbroken

unbroken("budget", "free", "dear", "own")

budget("spenders", per=("user", "day"), actions="budget.*", usd=1)
budget("strict", per="request", actions="budget.*", usd="0.5", on_exhausted="refuse")
budget("counted", per=("action", "agent"), actions="free.count", calls=2, on_exhausted="refuse")
budget("models", per="tenant", actions="llm.*", usd=1)
budget("general", per="user", actions="own.*", usd="0.5", on_exhausted="refuse")
budget(
    "rich", per="user", actions="own.*", usd=2, on_exhausted="refuse", only_for={"user": "rich"}, instead_of="general"
)
budget("named", per=(), actions="dear.unsaid", usd=1, on_exhausted="refuse")


rule("somebody-says-so", "budget.approved", require_approval(reason="it is not small"))


def cost_of(usd: str | None) -> Cost:
    """Cost what is said; None is not known."""
    if usd == "raise":
        raise ValueError("the price list is lost")
    return Cost(usd=usd)


@action("budget.spend", effect="pure", max_retries=1, retry_backoff=0.01, cost=cost_of)
async def spend(usd: str | None, ctx: Context, used: str | None = None, how: str = "well", mark: str = "") -> int:
    """Use what is said, and end as told."""
    del usd  # for its cost alone
    if mark:
        with Path(mark).open("a") as file:  # noqa: ASYNC230  a line
            file.write(f"{ctx.attempt}\n")
    if used is not None:
        ctx.used(tokens_in=1, tokens_out=1, cost_usd=Decimal(used))
    match how:
        case "retry":
            raise Retry("not reached")
        case "unknown":
            raise Unknown("no answer")
        case "die" if ctx.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            await asyncio.sleep(60)
    return 1


@action("budget.pay", effect="unsafe", max_retries=3, retry_backoff=0.01, cost=cost_of)
async def pay(usd: str, mark: str, answer: Any = "soon") -> int:
    """Pay, which is seen by a line in a file, and answer what is no number."""
    del usd  # as above
    with Path(mark).open("a") as file:  # noqa: ASYNC230  a line
        file.write("paid\n")
    return answer  # type: ignore[no-any-return]  # the point


@action("free.count", effect="pure")
async def count(n: int) -> int:
    """Cost nothing that is said."""
    return n


@action("dear.unsaid", effect="pure", max_retries=0)
async def unsaid() -> int:
    """Cost what nobody has said."""
    return 1


# Nothing by itself: its calls reserve.
BY_CALL = Cost(usd=0, calls=0)


@action("budget.loop", effect="pure", max_retries=0, cost=BY_CALL)
async def loop(calls: int, ctx: Context, usd: str = "0.25", used: str | None = "0.125") -> int:
    """Make so many calls, each paid for before it goes out; return how many there was money for."""
    for n in range(calls):
        try:
            await ctx.reserve(Cost(usd=usd))
        except BudgetShort:
            if n == 0:
                raise
            return n
        ctx.used(cost_usd=None if used is None else Decimal(used))
    return calls


@action("budget.loop_sync", effect="pure", max_retries=0, cost=BY_CALL)
def loop_sync(calls: int, ctx: Context, usd: str = "0.25", used: str | None = "0.125") -> int:
    """Do the same in a thread."""
    for n in range(calls):
        try:
            ctx.reserve(Cost(usd=usd))  # it waits by itself
        except BudgetShort:
            if n == 0:
                raise
            return n
        ctx.used(cost_usd=None if used is None else Decimal(used))
    return calls


@action("own.spend", effect="pure", max_retries=0, cost=cost_of)
async def spend_own(usd: str) -> int:
    """Cost what is said."""
    del usd  # as above
    return 1


@action("budget.approved", effect="unsafe", max_retries=0, cost=cost_of)
async def approved(usd: str) -> int:
    """Run only if somebody says so."""
    del usd  # as above
    return 1


@action("budget.follow", effect="pure", max_retries=0, cost=Cost(usd="0.25"))
async def follow(follows: str, ctx: Context) -> int:
    """Have another job follow, of an action that there is or is not."""
    ctx.used(cost_usd=Decimal("0.125"))
    ctx.enqueue(follows, {"a": 1, "b": 2})
    return 1

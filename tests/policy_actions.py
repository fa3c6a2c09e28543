"""Actions that policies have a say in, for the tests' workers. What each does is one line in a file."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from tasks import Asked, Context, Retry, Said, Unknown, action, allow, deny, policy, require_approval, rule
from tests.unbroken import unbroken

unbroken("gated")

EXPIRES = os.environ.get("TEST_EXPIRES", "60")


def line(book: str, **facts: Any) -> None:
    """Have an effect."""
    with Path(book).open("a", encoding="utf-8") as file:
        file.write(json.dumps(facts) + "\n")


def lines(book: str) -> list[dict[str, Any]]:
    """What was done so far."""
    path = Path(book)
    return [json.loads(each) for each in path.read_text().splitlines()] if path.exists() else []


def preview(amount: float, to: str) -> dict[str, Any]:
    """Say what will change."""
    if to == "nobody@example.com":
        raise LookupError("there is no such account")
    return {"account": to, "less": amount}


@action("gated.pay", effect="keyed", key_ttl=3_600, retry_backoff=0.05, preview=preview)
def pay(book: str, amount: float, ctx: Context, to: str = "ada@example.com", fail: int = 0) -> int:
    """Pay somebody."""
    line(book, amount=amount, to=to, attempt=ctx.attempt)
    if ctx.attempt <= fail:
        raise Retry("the bank is closed")
    return ctx.attempt


@action("gated.astray", effect="keyed", key_ttl=3_600, retry_backoff=8, retry_jitter=False)
def astray(book: str, amount: float, ctx: Context) -> int:
    """Lose the first answer, and wait a while before the next try."""
    line(book, amount=amount, attempt=ctx.attempt)
    if ctx.attempt == 1:
        raise Unknown("no answer")
    return ctx.attempt


rule("ask-about-astray", "gated.astray", require_approval(reason="it gets lost", approvers=["ben"], expires_in=60))


@action("gated.open", effect="pure")
async def open_(book: str) -> int:
    """Do what every policy lets pass."""
    line(book)
    return 1


@action("gated.broken", effect="pure")
async def broken(book: str, how: str, mended: str = "") -> int:
    """Do what a policy goes wrong about."""
    line(book, how=how, mended=mended)
    return 1


@policy("gated.pay", version=int(os.environ.get("TEST_POLICY_VERSION", "1")))
def large_sums(asked: Asked) -> Said:
    """Ask about large sums; the version is a setting here, so that a test can change it."""
    amount = asked.params["amount"]
    if amount < 100:
        return allow("small")
    if amount < 1_000:
        return require_approval(
            reason="100 or more",
            approvers=["ben", "eve", "kim"],
            expires_in=float(EXPIRES),
        )
    return require_approval(reason="1,000 or more", roles=["finance"], quorum=2, expires_in=60)


rule("nobody-in-particular", "gated.pay", deny("who is that?"), when={"user_id": None, "params.amount": {"<": 0}})
rule("no-strangers", "gated.*", deny("not for strangers"), when={"user_id": {"in": ["mallory", "trudy"]}}, version=3)


@policy("gated.broken")
async def goes_wrong(asked: Asked) -> Said:
    """Go wrong in every way, until it is mended."""
    how = asked.params["how"]
    if asked.params.get("mended") and os.path.exists(asked.params["mended"]):  # noqa: ASYNC240, PTH110  a moment
        return allow()
    if how == "hang":
        await asyncio.sleep(60)
    if how == "exit":
        raise SystemExit(3)
    if how == "nonsense":
        return True  # type: ignore[return-value]  # the point
    if how == "none":
        return None  # type: ignore[return-value]  # the point
    if how == "alter":
        asked.params["how"] = "altered"  # type: ignore[index]  # the point
        return allow()
    raise LookupError("secret-sauce")


@policy("gated.open")
def slow_but_fine(asked: Asked) -> Said:
    """Wait a moment, in a thread."""
    time.sleep(0.01)
    return allow(f"attempt {asked.attempt} of {asked.action} for {asked.user_id}")

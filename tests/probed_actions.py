"""Actions that end as a test says, and some that are cut off, loaded by workers as a user's own module would be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tasks import Context, Dependency, Hold, Refused, Retry, action

RECOVERY_SECONDS = 0.5


class Excluded(Retry):
    """What says nothing against whom was called."""


class Declined(Exception):
    """What its action has no use for trying again."""


KINDS: dict[str, Callable[[], Exception]] = {
    "ill": lambda: Retry("it is ill"),
    "refused": lambda: Refused("no"),
    "never sent": lambda: httpx.InvalidURL("no"),
    "hold": lambda: Hold("patience", after=0.3),
    "hold for an hour": lambda: Hold("patience", after=3_600),
    "excluded": lambda: Excluded("no"),
    "declined": lambda: Declined("no"),
}

PROBED = Dependency(
    name="probed", per=("of",), recovery_seconds=RECOVERY_SECONDS, release_per_second=50, exclude=(Excluded,)
)


@action("probed.call", effect="pure", dependency=PROBED, max_retries=0, dont_autoretry_for=(Declined,))
async def call(of: str, mark: str) -> str:  # noqa: ARG001  by `of` its breaker is told from others
    """End as a file says."""
    says = Path(mark).read_text()  # noqa: ASYNC240  the file is a test's
    if (kind := KINDS.get(says)) is not None:
        error = kind()
        raise error
    if says[:3].isdigit():
        answered(int(says[:3]), **({"x-should-retry": "false"} if says.endswith("for good") else {}))
    if says == "own fault":
        return {"answer": says}["anwser"]
    return "done"


def answered(status: int, **headers: str) -> None:
    """Raise as a call does that was answered so."""
    request = httpx.Request("GET", "http://127.0.0.1:1/")
    response = httpx.Response(status, request=request, headers=headers)
    raise httpx.HTTPStatusError(f"it answered {status}", request=request, response=response)


async def _hang() -> None:
    await asyncio.sleep(60)


# Long enough that nothing of it ends by itself during a test.
SLOW = Dependency(name="hangs and is declared", slow_call_seconds=0.3, recovery_seconds=300)


@action("hangs.declared", effect="pure", dependency=SLOW, max_retries=0, timeout=60)
async def hangs_declared() -> None:
    """Hang, where it is known from when on a call is slow."""
    await _hang()


@action("hangs.long", effect="pure", dependency="hangs for long", max_retries=0, timeout=14)
async def hangs_long() -> None:
    """Hang for most of what the action allows itself, where a job has a little less time than that."""
    await _hang()


@action("hangs.client", effect="pure", dependency="hangs in its client", max_retries=0, timeout=60)
async def hangs_client(ctx: Context) -> None:
    """Hang, and be cut off by a client that is given the time there is, a moment before that is over."""
    try:
        async with asyncio.timeout(ctx.seconds_left - 3):
            await _hang()
    except TimeoutError as error:
        raise Retry("no answer in time") from error


# Its recovery is long enough for a ring that takes its time on a busy machine to be little beside it.
MENDING = Dependency(name="mending", recovery_seconds=8, release_per_second=20)


@action("mending.call", effect="pure", dependency=MENDING, max_retries=None, retry_backoff=0.1, retry_backoff_max=0.5)
async def mending(log: str) -> str:
    """Call what a file breaks; leave a line behind for each call."""
    with Path(log).open("a") as book:  # noqa: ASYNC230  as above
        book.write(f"{time.time()}\n")
    if Path(f"{log}.broken").exists():  # noqa: ASYNC240  as above
        raise Retry("it is broken")
    return "done"

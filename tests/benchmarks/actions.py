"""The no-op as Surefoot's actions, in the two effect classes whose intents cost differently, and one that waits.

A pure action's intent does not wait for the disk; any other's must be there before the effect.
"""

from __future__ import annotations

import asyncio

from tasks import action


@action("bench.pure", effect="pure")
async def pure(number: int) -> int:
    """Return the number."""
    return number


@action("bench.unsafe", effect="unsafe")
async def unsafe(number: int) -> int:
    """Return the number, as an action would whose effect must not be repeated."""
    return number


@action("bench.sync", effect="pure")
def sync(number: int) -> int:
    """Return the number from a thread."""
    return number


@action("bench.wait", effect="pure")
async def wait(number: int) -> int:
    """Return the number a second later, as an action does that waits for a model."""
    await asyncio.sleep(1)
    return number

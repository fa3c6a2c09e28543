"""The actions of a worker of the next build: another body of one, another major version of another."""

from __future__ import annotations

import tests.chaos.storm.actions  # noqa: F401  registers the others
from tasks import Context, Retry, action
from tests.chaos.storm.actions import BACKOFF, KEY_SECONDS
from tests.chaos.storm.asks_world import Receipt, ask


@action("storm.keyed", effect="keyed", key_ttl=KEY_SECONDS, **BACKOFF)
async def keyed(n: int, ctx: Context) -> Receipt:
    """Do what is done once for each key; every fifth time not at the first try."""
    if ctx.attempt == 1 and n % 5 == 0:
        raise Retry("not yet", after=0.2)
    return await ask("keyed", ctx, {"n": n})


@action("storm.versioned", effect="keyed", key_ttl=KEY_SECONDS, version=2, **BACKOFF)
async def versioned(n: int, ctx: Context) -> Receipt:
    """Do it as its second version means it."""
    return await ask("keyed", ctx, {"n": n})

"""The actions of a worker of the current build."""

from __future__ import annotations

import tests.chaos.storm.actions  # noqa: F401  registers the others
from tasks import Context, action
from tests.chaos.storm.actions import BACKOFF, KEY_SECONDS
from tests.chaos.storm.asks_world import Receipt, ask


@action("storm.keyed", effect="keyed", key_ttl=KEY_SECONDS, **BACKOFF)
async def keyed(n: int, ctx: Context) -> Receipt:
    """Do what is done once for each key."""
    return await ask("keyed", ctx, {"n": n})


@action("storm.versioned", effect="keyed", key_ttl=KEY_SECONDS, version=1, **BACKOFF)
async def versioned(n: int, ctx: Context) -> Receipt:
    """Do it as its first version means it."""
    return await ask("keyed", ctx, {"n": n})

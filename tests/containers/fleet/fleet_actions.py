"""Actions that a test mounts into worker containers: one whose effect somebody counts, and one that only waits."""

from __future__ import annotations

import time

import httpx

from tasks import Context, action


@action("fleet.effect", effect="keyed", key_ttl=86_400, dependency="world", max_retries=30, retry_backoff_max=2)
async def effect(url: str, ctx: Context) -> int:
    """Have something done once, by our key."""
    async with httpx.AsyncClient(timeout=20) as client:
        answer = await client.post(url, headers=ctx.headers() | {"Idempotency-Key": ctx.downstream_key()})
    answer.raise_for_status()
    return int(answer.json())


@action("fleet.wait", effect="pure")
def wait(seconds: float) -> None:
    """Wait, as for a model."""
    time.sleep(seconds)

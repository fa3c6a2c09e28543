"""Actions whose dependency is in trouble until a file says otherwise: with a budget for its retries, and without."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tasks import Dependency, Retry, action


async def _call(well: str) -> int:
    if not await asyncio.to_thread(Path(well).exists):
        raise Retry("it is down")
    return 1


@action(
    "outage.budgeted",
    effect="pure",
    dependency=Dependency(name="outage with a budget", fail_max=None, failure_rate=None, retries_per_second=1),
    max_retries=None,
    retry_backoff=0.1,
    retry_backoff_max=0.5,
)
async def budgeted(well: str) -> int:
    """Call what is in trouble."""
    return await _call(well)


@action(
    "outage.unbudgeted",
    effect="pure",
    dependency=Dependency(name="outage without one", fail_max=None, failure_rate=None, retry_share=None),
    max_retries=None,
    retry_backoff=0.1,
    retry_backoff_max=0.5,
)
async def unbudgeted(well: str) -> int:
    """Call it, again and again."""
    return await _call(well)


@action(
    "outage.unusable",
    effect="pure",
    dependency=Dependency(name="outage of sense", fail_max=None, failure_rate=None, retries_per_second=0.1),
    max_retries=6,
    retry_backoff=0.01,
)
async def unusable() -> int:
    """Answer what cannot be used, as an API that has changed."""
    return "no number"  # type: ignore[return-value]  # on purpose

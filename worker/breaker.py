"""What the fleet knows of its dependencies, in Redis: which of them asked for patience, and until when.

One 429 is a word to everybody. Whoever hears it writes down until when the dependency is held; every other worker
sees it before its own call, and holds its jobs instead of spending them.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from worker.fleet import AWAY_SECONDS, Away, Fleet, Script
from worker.log import log

# Redis is asked at most this often per dependency; a hold that another process set shows within this time.
STALE_SECONDS = 0.5

# PX with GT semantics: a hold is only ever prolonged. Redis's clock decides.
HOLD = Script("""
local left = redis.call('PTTL', KEYS[1])
if tonumber(ARGV[1]) > left then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1]) end
return 0
""")


@dataclass(slots=True)
class _Seen:
    held_until: float
    fresh_until: float


class Holds:
    """The fleet's holds as one process sees them, on its loop. Connects at the first use."""

    def __init__(self, url: str) -> None:
        """Connect nothing yet. Where the broker at `url` is no Redis, holds are this process's own."""
        self._fleet = Fleet(url, on_away=_log_away)
        self._seen: dict[str, _Seen] = {}
        self._asking: dict[str, asyncio.Future[float]] = {}

    async def seconds_held(self, dependency: str) -> float:
        """Return for how long the dependency is still held; 0 where it is not, or Redis cannot say."""
        now = time.monotonic()
        seen = self._seen.get(dependency)
        if seen is not None and (now < seen.held_until or now < seen.fresh_until):
            return max(0.0, seen.held_until - now)
        asking = self._asking.get(dependency)
        if asking is None:  # a ring of a hundred jobs asks once
            asking = self._asking[dependency] = asyncio.ensure_future(self._ask(dependency))
            asking.add_done_callback(lambda _: self._asking.pop(dependency, None))
        return await asyncio.shield(asking)

    async def _ask(self, dependency: str) -> float:
        try:
            left = int(await self._fleet.command("PTTL", _key(dependency)))
        except Away:
            return 0.0
        self._see(dependency, max(left, 0) / 1000)
        return max(left, 0) / 1000

    async def hold(self, dependency: str, seconds: float, *, why: str) -> None:
        """Hold the dependency for everyone. With Redis away, for this process alone."""
        self._see(dependency, seconds)
        log.info("dependency.held", dependency=dependency, seconds=seconds, why=why)
        with suppress(Away):
            await self._fleet.run(HOLD, [_key(dependency)], [max(1, int(seconds * 1000)), why])

    async def close(self) -> None:
        """Hang up."""
        await self._fleet.close()

    def _see(self, dependency: str, seconds: float) -> None:
        # Never sooner than was seen before: an answer may have been on its way while the hold was prolonged here.
        now = time.monotonic()
        seen = self._seen.get(dependency)
        held_until = max(now + seconds, 0.0 if seen is None else seen.held_until)
        self._seen[dependency] = _Seen(held_until, now + STALE_SECONDS)


def _log_away(error: str) -> None:
    log.warning("dependency.unshared", error=error, for_seconds=AWAY_SECONDS)


def _key(dependency: str) -> str:
    return f"surefoot:held:{dependency}"

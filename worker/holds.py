"""What the fleet knows of its dependencies, in Redis: which of them asked for patience, and until when.

One 429 is a word to everybody. Whoever hears it writes down until when the dependency is held; every other worker
sees it before its own call, and holds its jobs instead of spending them.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from producer.breaker_words import HOLDS, held_key_of
from worker.fleet import Away, Fleet, Script
from worker.log import log

# Redis is asked at most this often per dependency; a hold that another process set, or an operator ended, shows within
# this time.
STALE_SECONDS = 0.5

MOST_KNOWN = 10_000

# PX with GT semantics: a hold is only ever prolonged. Redis's clock decides. The list of holds is for whoever looks
# (`producer.breakers`), and is cleared of those that are over by whoever adds to it.
HOLD = Script("""
local left = redis.call('PTTL', KEYS[1])
if tonumber(ARGV[1]) > left then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZADD', KEYS[2], now + ARGV[1], ARGV[3])
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
end
return 0
""")


@dataclass(slots=True)
class _Seen:
    """What is known of a dependency; `own` is what this process heard itself and could tell nobody, or not yet."""

    held_until: float
    fresh_until: float
    own: bool = False


class Holds:
    """The fleet's holds as one process sees them, on its loop. Connects at the first use."""

    def __init__(self, fleet: Fleet) -> None:
        """Connect nothing yet. Where the fleet's broker is no Redis, holds are this process's own."""
        self._fleet = fleet
        self._seen: dict[str, _Seen] = {}
        self._asking: dict[str, asyncio.Future[float]] = {}

    async def seconds_held(self, dependency: str) -> float:
        """Return for how long the dependency is still held; 0 where it is not, or Redis cannot say."""
        now = time.monotonic()
        seen = self._seen.get(dependency)
        if seen is not None and (now < seen.fresh_until or (seen.own and now < seen.held_until)):
            return max(0.0, seen.held_until - now)
        asking = self._asking.get(dependency)
        if asking is None:  # a ring of a hundred jobs asks once
            asking = self._asking[dependency] = asyncio.ensure_future(self._ask(dependency))
            asking.add_done_callback(lambda _: self._asking.pop(dependency, None))
        return await asyncio.shield(asking)

    async def _ask(self, dependency: str) -> float:
        try:
            left = max(int(await self._fleet.command("PTTL", held_key_of(dependency))), 0) / 1000
        except Away:
            seen = self._seen.get(dependency)
            return 0.0 if seen is None else max(0.0, seen.held_until - time.monotonic())
        seen, now = self._seen.get(dependency), time.monotonic()
        if seen is not None and seen.own and now < seen.held_until:  # heard here while the answer was on its way
            return seen.held_until - now
        self._keep(dependency, _Seen(now + left, now + STALE_SECONDS))  # sooner than before: an operator ended it
        return left

    async def hold(self, dependency: str, seconds: float, *, why: str) -> None:
        """Hold the dependency for everyone. With Redis away, for this process alone."""
        log.info("dependency.held", dependency=dependency, seconds=seconds, why=why)
        now, before = time.monotonic(), self._seen.get(dependency)
        held_until = max(now + seconds, 0.0 if before is None else before.held_until)
        mine = _Seen(held_until, now + STALE_SECONDS, own=True)
        self._keep(dependency, mine)
        with suppress(Away):
            told = [max(1, int(seconds * 1000)), why, dependency]
            await self._fleet.run(HOLD, [held_key_of(dependency), HOLDS], told)
            mine.own = False  # Redis has it, and the last word on it

    def _keep(self, dependency: str, seen: _Seen) -> None:
        self._seen.pop(dependency, None)
        self._seen[dependency] = seen
        if len(self._seen) > MOST_KNOWN:  # Redis forgets none
            del self._seen[next(iter(self._seen))]

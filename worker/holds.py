"""What the fleet knows of its dependencies, in Redis: which of them asked for patience, and until when.

One 429 is a word to everybody. Whoever hears it writes down until when the dependency is held; every other worker
sees it before its own call, and holds its jobs instead of spending them. They come back one by one: if all did so the
moment it is over, the first that is asked for patience again would have had all others come for nothing.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from producer.breaker_scripts import BEHIND, LONGEST_LINE_MS, LONGEST_MS
from producer.breaker_words import HOLDS, held_key_of, line_key_of
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

# The line of those that wait is so many times as long as the hold, and at least a minute: most of those in it may have
# been cancelled, and a short hold must not cost ten minutes for that.
LINE_SHARE, SHORTEST_LINE_MS = 10, 60_000

# Answers for how long it is still held, and after how long is the place of who waits in that line; 0 is that he cannot
# wait for so long, and takes none. Of a Redis that is full there is an answer, too: it takes note of nobody.
PLACE = Script(f"""{BEHIND}
local left = redis.call('PTTL', KEYS[1])
if left <= 0 then return {{0, 0}} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local first, last = now + left, tonumber(redis.call('GET', KEYS[2])) or 0
local longest = math.min({LONGEST_LINE_MS}, math.max({SHORTEST_LINE_MS}, {LINE_SHARE} * left))
local place = behind(first, last, tonumber(ARGV[1]), longest)
if place - now > tonumber(ARGV[2]) then return {{left, 0}} end
redis.pcall('SET', KEYS[2], place, 'PX', math.ceil(place - now) + 60000)
return {{left, math.ceil(place - now)}}
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

    async def wait_seconds(
        self, dependency: str, *, per_second: float, at_most: float, needs: float, jitter: float
    ) -> float:
        """Return after how long a job is to come back that would call a held dependency; 0 where it is not held.

        Args:
            dependency: Its name.
            per_second: How many jobs come back in a second, of the whole fleet's, once it is over.
            at_most: Seconds for which the job can wait at all.
            needs: Of these it has so many left where it has a place in the line. Whoever has no time for that comes
                after the end of the hold, and before his own time is over, if it is over by then.
            jitter: From 0 to 1. Where Redis cannot say, this process's jobs come back within a quarter of the time.
        """
        held, at_most = await self.seconds_held(dependency), min(at_most, 2 * LONGEST_MS / 1000)
        seen = self._seen.get(dependency)
        if not held or (seen is not None and seen.own):  # or Redis knows nothing of it
            return held + min(held / 4, _spread(held, at_most, needs)) * jitter
        keys, asked = [held_key_of(dependency), line_key_of(dependency)], [1000 / per_second, (at_most - needs) * 1000]
        try:
            left, wait = (int(ms) / 1000 for ms in await self._fleet.run(PLACE, keys, asked))
        except Away:
            return held + min(held / 4, _spread(held, at_most, needs)) * jitter
        if wait:
            return wait
        if left:
            return left + _spread(left, at_most, needs) * jitter
        if self._seen.get(dependency) is seen:  # and nobody has heard of another meanwhile
            now = time.monotonic()
            self._keep(dependency, _Seen(now, now + STALE_SECONDS))
        return 0.0

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


def _spread(held: float, at_most: float, needs: float) -> float:
    """Return over how many seconds after a hold's end those come who have no place in the line.

    Over all the time that they can do without. Where that is little, nearly all of them would come in the same moment:
    then within a quarter of the hold, but so that half of the time that each has left is still to come. An attempt that
    has less than its action's time may well succeed; one whose deadline is over cannot. Who has none left comes to
    nothing anyway, and need not do so together with the others.
    """
    left = at_most - held
    return max(left - needs, min(held / 4, left / 2)) if left > 0 else held / 4

"""What the fleet knows of its dependencies, in Redis: which of them asked for patience, and until when.

One 429 is a word to everybody. Whoever hears it writes down until when the dependency is held; every other worker
sees it before its own call, and holds its jobs instead of spending them.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import redis.asyncio as redis
from redis.asyncio.retry import Retry as RedisRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from worker.log import log

# Redis is asked at most this often per dependency; a hold that another process set shows within this time.
STALE_SECONDS = 0.5
# No attempt waits longer than this for a Redis that does not answer; then it goes ahead unheld.
TIMEOUT_SECONDS = 0.25
AWAY_SECONDS = 5.0

# PX with GT semantics: a hold is only ever prolonged. Redis's clock decides.
HOLD = """
local left = redis.call('PTTL', KEYS[1])
if tonumber(ARGV[1]) > left then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1]) end
return 0
"""


@dataclass(slots=True)
class _Seen:
    held_until: float
    fresh_until: float


class Holds:
    """The fleet's holds as one process sees them. Thread-safe; connects at the first use."""

    def __init__(self, url: str) -> None:
        """Connect nothing yet. Where the broker at `url` is no Redis, holds are this process's own."""
        self._redis = _client(url)
        self._seen: dict[str, _Seen] = {}
        self._away_until = 0.0
        self._lock = threading.Lock()

    async def seconds_held(self, dependency: str) -> float:
        """Return for how long the dependency is still held; 0 where it is not, or Redis cannot say."""
        now = time.monotonic()
        seen = self._seen.get(dependency)
        if seen is not None and (now < seen.held_until or now < seen.fresh_until):
            return max(0.0, seen.held_until - now)
        if self._redis is None or now < self._away_until:
            return 0.0
        try:
            left = int(await self._redis.pttl(_key(dependency)))
        except RedisError as error:
            self._missed(error)
            return 0.0
        held = max(left, 0) / 1000
        with self._lock:
            self._seen[dependency] = _Seen(now + held, now + STALE_SECONDS)
        return held

    async def hold(self, dependency: str, seconds: float, *, why: str) -> None:
        """Hold the dependency for everyone. With Redis away, for this process alone."""
        now = time.monotonic()
        with self._lock:
            held_until = max(now + seconds, self._seen[dependency].held_until if dependency in self._seen else 0.0)
            self._seen[dependency] = _Seen(held_until, now + STALE_SECONDS)
        log.info("dependency.held", dependency=dependency, seconds=seconds, why=why)
        if self._redis is None:
            return
        try:
            await self._redis.eval(  # type: ignore[misc]
                HOLD, 1, _key(dependency), str(max(1, int(seconds * 1000))), why
            )
        except RedisError as error:
            self._missed(error)

    def _missed(self, error: RedisError) -> None:
        self._away_until = time.monotonic() + AWAY_SECONDS
        log.warning("dependency.unshared", error=str(error), for_seconds=AWAY_SECONDS)


def _client(url: str) -> redis.Redis | None:
    if not url.startswith(("redis://", "rediss://")):
        return None
    # A client of its own, without redis-py's retries: its default would hold an attempt for eight seconds.
    timeouts = {"socket_timeout": TIMEOUT_SECONDS, "socket_connect_timeout": TIMEOUT_SECONDS}
    return redis.Redis.from_url(url, **timeouts, retry=RedisRetry(NoBackoff(), 0))


def _key(dependency: str) -> str:
    return f"surefoot:held:{dependency}"

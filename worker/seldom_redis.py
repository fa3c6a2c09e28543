"""Redis as a worker's relay asks it: every few seconds, in its thread, and not at all for a while where it is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import redis

from producer.broker import bounded_redis, is_redis, redis_client
from worker.fleet import AWAY_SECONDS

Answer = TypeVar("Answer")


class SeldomRedis:
    """One connection for all that a relay asks, made at the first use."""

    def __init__(self, redis_url: str) -> None:
        """Connect nothing yet. Where the broker is no Redis, nothing is ever asked."""
        self._url = redis_url if is_redis(redis_url) else None
        self._client: Any = None
        self._quiet_until = 0.0

    def ask(self, question: Callable[[Any], Answer]) -> Answer | None:
        """Return what `question` makes of the client; None where Redis refuses, does not answer, or did not just now.

        Nothing is logged: an attempt that has to ask says so, and here nothing is late that is not late anyway.
        """
        if self._url is None or time.monotonic() < self._quiet_until:
            return None
        try:
            if self._client is None:
                self._client = redis_client(self._url, protocol=2, **bounded_redis())
            return question(self._client)
        except redis.ResponseError:  # it is there, and another duty's question it may answer
            return None
        except redis.RedisError:
            self._quiet_until = time.monotonic() + AWAY_SECONDS
            return None

"""Announcing: telling whoever waits for a job that it has ended, over Redis, without ever being waited for.

An announcement names a job and carries nothing else. Losing it costs a waiter a second, since the ledger says how the
job ended; so it is sent once, and dropped where Redis is away.
"""

from __future__ import annotations

import atexit
import time
import weakref
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import UUID

from producer.broker import bounded_redis, is_redis, load_redis, redis_client
from producer.standby import IDLE_SECONDS, Standby

if TYPE_CHECKING:
    import redis

CHANNEL_PREFIX = "surefoot:job:"
# After a failure nothing is sent for so long: a dead Redis should not be asked again for every job.
QUIET_SECONDS = 5.0
# As many as one command publishes in a millisecond: Redis does nothing else meanwhile.
BATCH = 1_000
# What gathers while Redis hangs; beyond it the oldest are dropped.
HELD = 10_000

# One command, one answer, whatever the number of jobs. There is nothing to say, so the messages are empty.
ANNOUNCE = f"for _, id in ipairs(ARGV) do redis.call('PUBLISH', '{CHANNEL_PREFIX}' .. id, '') end"


class Announcer(Standby):
    """Announces jobs from a thread of its own. Safe to share between threads, and usable after a fork."""

    def __init__(self, redis_url: str) -> None:
        """Connect nothing yet. Where the broker at `redis_url` is no Redis, nothing is ever announced."""
        super().__init__("announcer")
        _announcers.add(self)
        self._url = redis_url if is_redis(redis_url) else None

    def announce(self, job_ids: Iterable[UUID]) -> None:
        """Wake whoever waits for these jobs, soon. Returns at once, never fails, and promises nothing.

        A process that ends sends what has gathered, if Redis takes it within a second.
        Call it after the commit: whoever is woken reads the ledger.
        """
        if self._url is None:
            return
        # No new thread can be had while the interpreter shuts down; then nobody here waits for this either.
        with self._changed, suppress(RuntimeError):
            if time.monotonic() >= self._quiet_until:
                self._ended.extend(job_ids)
                if self._ended:
                    self._call()

    def _renew(self) -> None:
        super()._renew()
        self._ended: deque[UUID] = deque(maxlen=HELD)
        self._quiet_until = 0.0
        self._client: redis.Redis | None = None

    def _prepare(self) -> None:
        load_redis()

    def _run(self) -> None:
        while job_ids := self._gathered():
            self._send(job_ids)

    def _gathered(self) -> list[UUID]:
        """Wait for jobs to announce and take them; none where there has been nothing to do for a while."""
        with self._changed:
            while not self._ended:
                # Looked at again: one that is added while the wait ends finds a thread, and so begins none.
                if self._closing or not (self._changed.wait(IDLE_SECONDS) or self._ended):
                    self._let_go()
                    return []
            return [self._ended.popleft() for _ in range(min(len(self._ended), BATCH))]

    def _let_go(self) -> None:
        self._thread = None
        if self._client is not None:
            self._client.close()
            self._client = None

    def _send(self, job_ids: list[UUID]) -> None:
        try:
            if self._client is None:
                self._client = _client(str(self._url))
            self._client.eval(ANNOUNCE, 0, *map(str, job_ids))
        except Exception as error:  # noqa: BLE001  whatever Redis or its URL does, nobody is waiting for this thread
            with self._changed:
                self._quiet_until = time.monotonic() + QUIET_SECONDS
                dropped = len(job_ids) + len(self._ended)
                self._ended.clear()
            _log_unannounced(error, dropped)


_announcers: weakref.WeakSet[Announcer] = weakref.WeakSet()


def _send_what_gathered() -> None:
    for announcer in list(_announcers):
        announcer.close()


# The command line cancels a job and ends; whoever waits for it should know.
atexit.register(_send_what_gathered)


def _client(url: str) -> redis.Redis:
    return redis_client(url, **bounded_redis())


def _log_unannounced(error: Exception, dropped: int) -> None:
    import structlog  # noqa: PLC0415  only a failure logs on this side

    structlog.get_logger("producer").warning(
        "results.unannounced", error=str(error), jobs=dropped, for_seconds=QUIET_SECONDS
    )

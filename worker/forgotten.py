"""Jobs that wait for a place of a limited action while there are free ones, since whoever would ring them is gone.

The line for a fleet's places is in Redis, and may be lost with it; that for a process's own ends with the process; and
a place that was a dead worker's is free once its lease is over, which nobody may notice. By themselves jobs come back
when their turn should long have come, which may have been reckoned in a storm. So every worker's relay looks every few
seconds whether a place is free, and wakes the oldest of those that wait for it; one for which there is none after all
stands in line again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import redis
from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.broker import bounded_redis, is_redis, redis_client
from producer.ring import Ring
from tasks import ActionSpec
from worker.fleet import AWAY_SECONDS
from worker.limits import ring_of
from worker.limits_in_redis import LOOK, keys_of
from worker.log import log

FORGOTTEN_SECONDS = 5.0
# How many are woken to stand in a line that is not there. Once it is, places are given away one by one.
BATCH = 100

WAKE = text("""
UPDATE jobs SET due_at = statement_timestamp(), ring_at = statement_timestamp()
WHERE id IN (
  SELECT id FROM jobs
  WHERE waiting_for = 'concurrency' AND action = :action AND action_version = :version
    AND due_at > statement_timestamp()
  ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED
)
""")


class Forgotten:
    """Looks for them, for one relay, in its thread. Connects at the first use."""

    def __init__(
        self,
        redis_url: str,
        actions: Collection[ActionSpec],
        *,
        places_here: Callable[[ActionSpec], int],
        ring: Callable[[Sequence[Ring]], object],
    ) -> None:
        """Connect nothing yet.

        Args:
            redis_url: The broker's. Where that is no Redis, a fleet's places are not looked at.
            actions: Those that this worker performs.
            places_here: How many more of an action may run in this process, though nobody waits for that here.
            ring: Rings for jobs that were given a place; must not block.
        """
        limited = [spec for spec in actions if spec.limits.is_concurrent]
        self._fleet_wide = [spec for spec in limited if spec.limits.fleet_concurrency is not None]
        self._by_process = [spec for spec in limited if spec.limits.fleet_concurrency is None]
        self._url = redis_url if is_redis(redis_url) and self._fleet_wide else None
        self._places_here, self._ring = places_here, ring
        self._client: Any = None
        self._quiet_until = 0.0

    def look(self, connection: Connection) -> int:
        """Wake those for whom there is a place; return how many.

        Args:
            connection: In autocommit.
        """
        free = [(spec, self._places_here(spec)) for spec in self._by_process] + self._free_in_the_fleet()
        woken = {spec.name: _wake(connection, spec, places) for spec, places in free if places > 0}
        if any(woken.values()):
            log.info("limit.woken", actions={name: count for name, count in woken.items() if count})
        return sum(woken.values())

    def _free_in_the_fleet(self) -> list[tuple[ActionSpec, int]]:
        """Give away places for which somebody stands in line; return how many others there are, by action."""
        if self._url is None or time.monotonic() < self._quiet_until:
            return []
        try:
            answers = self._ask(self._url)
        except redis.RedisError:  # whoever asks for a place says so
            self._quiet_until = time.monotonic() + AWAY_SECONDS
            return []
        rings = [ring_of(spec.name, each) for spec, (_, *given) in answers for each in given if each is not None]
        if rings:
            self._ring(rings)
        return [(spec, free) for spec, (free, *_) in answers]

    def _ask(self, url: str) -> list[tuple[ActionSpec, Sequence[Any]]]:
        if self._client is None:
            self._client = redis_client(url, protocol=2, **bounded_redis())
        look, together = self._client.register_script(LOOK.text), self._client.pipeline(transaction=False)
        for spec in self._fleet_wide:
            look(keys=keys_of(spec.name), args=["", spec.limits.fleet_concurrency], client=together)
        return list(zip(self._fleet_wide, together.execute(), strict=True))


def _wake(connection: Connection, spec: ActionSpec, places: int) -> int:
    # With two limits, it may be the other one that keeps them: as many are tried as there are places.
    both = spec.limits.max_concurrency is not None and spec.limits.fleet_concurrency is not None
    most = places if both else max(places, BATCH)
    return connection.execute(WAKE, {"action": spec.name, "version": spec.version, "most": most}).rowcount

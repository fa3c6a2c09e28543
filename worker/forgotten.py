"""The line for a fleet's places held to the ledger: who waits and stands in no line is woken, who is over leaves it.

The line is in Redis: it may be lost with it, or come back as it was long ago; jobs in it are cancelled, or expire; and
a place that was a dead worker's is free once its lease is over, which nobody may notice. By themselves jobs come back
when their turn should long have come, which may have been reckoned in a storm. So every few seconds the relay of one
worker of the fleet compares what the two say of the oldest jobs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any
from uuid import UUID

import redis
from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.broker import bounded_redis, is_redis, redis_client
from producer.ledger.states import CLOSED, in_sql
from producer.ring import Ring
from tasks import ActionSpec
from worker.fleet import AWAY_SECONDS
from worker.limits import rings_of
from worker.limits_in_redis import KEYS, MEND, keys_of, looked_key_of
from worker.log import log

FORGOTTEN_SECONDS = 5.0
# Whoever comes first looks for all; the next one somewhat earlier than by his own clock.
TURN_MILLISECONDS = 4_000
# Of so many, from the oldest on: until they have had their turn, nobody misses the others.
BATCH = 500

OVER = text(f"""
SELECT a.id FROM unnest(CAST(:ids AS uuid[])) AS a(id) LEFT JOIN jobs j USING (id)
WHERE j.id IS NULL OR j.state IN ({in_sql(CLOSED)})
""")
WAITING = text("""
SELECT id FROM jobs WHERE waiting_for = 'concurrency' AND action = :action AND due_at > clock_timestamp()
ORDER BY id LIMIT :batch
""")
WAKE = text("""
UPDATE jobs SET due_at = statement_timestamp(), ring_at = statement_timestamp()
WHERE id IN (
  SELECT id FROM jobs WHERE id = ANY(:ids) AND waiting_for = 'concurrency' AND due_at > statement_timestamp()
  ORDER BY id FOR UPDATE SKIP LOCKED
)
""")


class Forgotten:
    """Compares them, for one relay, in its thread. Connects at the first use."""

    def __init__(
        self, redis_url: str, actions: Collection[ActionSpec], *, ring: Callable[[Sequence[Ring]], object]
    ) -> None:
        """Connect nothing yet.

        Args:
            redis_url: The broker's. Where that is no Redis, there is no line.
            actions: Those that this worker performs.
            ring: Rings for jobs that were given a place; must not block.
        """
        self._limited = [spec for spec in actions if spec.limits.fleet_concurrency is not None]
        self._url = redis_url if is_redis(redis_url) and self._limited else None
        self._ring = ring
        self._client: Any = None
        self._mend: Any = None
        self._quiet_until = 0.0

    def look(self, connection: Connection) -> int:
        """Mend the lines of those actions at which nobody looked just now; return how many jobs were woken.

        Args:
            connection: In autocommit.
        """
        if self._url is None or time.monotonic() < self._quiet_until:
            return 0
        try:
            woken = {spec.name: self._look_at(connection, spec) for spec in self._turns(self._url)}
        except redis.RedisError:  # whoever asks for a place says so
            self._quiet_until = time.monotonic() + AWAY_SECONDS
            return 0
        if any(woken.values()):
            log.info("limit.woken", actions={name: count for name, count in woken.items() if count})
        return sum(woken.values())

    def _turns(self, url: str) -> list[ActionSpec]:
        if self._client is None:
            self._client = redis_client(url, protocol=2, **bounded_redis())
            self._mend = self._client.register_script(MEND.text)
        together = self._client.pipeline(transaction=False)
        for spec in self._limited:
            together.set(looked_key_of(spec.name), 1, nx=True, px=TURN_MILLISECONDS)
        return [spec for spec, is_ours in zip(self._limited, together.execute(), strict=True) if is_ours]

    def _look_at(self, connection: Connection, spec: ActionSpec) -> int:
        keys = keys_of(spec.name)
        line, places = (keys[KEYS.index(name)] for name in ("line", "places"))
        found = self._client.zrange(line, 0, BATCH - 1) + self._client.zrange(places, 0, BATCH - 1)
        # Whose place it is already has the worker's name behind the job's.
        next_ones = [UUID(member.decode()) for member in found if b" " not in member]
        over = [*connection.execute(OVER, {"ids": next_ones}).scalars()] if next_ones else []
        # With a limit for each process beside, who waits may stand in the line of one of these.
        alone = spec.limits.max_concurrency is None
        waiting = [*connection.execute(WAITING, {"action": spec.name, "batch": BATCH}).scalars()] if alone else []
        if not next_ones and not waiting:
            return 0
        told = ["", spec.limits.fleet_concurrency, len(over), *map(str, over), *map(str, waiting)]
        lost, *rings = self._mend(keys=keys, args=told)
        if given := rings_of(spec.name, rings):
            self._ring(given)
        ids = [UUID(member.decode()) for member in lost]
        return connection.execute(WAKE, {"ids": ids}).rowcount if ids else 0

"""The line for a fleet's places held to the ledger: who waits and stands in no line is in it again, who is over is not.

The line is in Redis: it may be lost with it, or come back as it was long ago; jobs in it are cancelled, or expire; and
a place that was a dead worker's is free once its lease is over, which nobody may notice. By themselves jobs come back
when their turn should long have come, which may have been reckoned in a storm. So every few seconds the relay of one
worker of the fleet compares what the two say of the oldest jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.ledger.states import CLOSED, in_sql
from producer.ring import Ring
from tasks import ActionSpec
from worker.limits import SECOND, order_of, payload_of, rings_of
from worker.limits_in_redis import KEYS, MEND, RESERVED_SECONDS, WAIT, keys_of, lined_key_of, looked_key_of
from worker.log import log
from worker.seldom_redis import SeldomRedis

FORGOTTEN_SECONDS = 5.0
# Whoever comes first looks for all; the next one somewhat earlier than by his own clock.
TURN_MILLISECONDS = 4_000
# Of so many, from the oldest on: until they have had their turn, nobody misses the others.
BATCH = 500
# Whoever was put into a line is remembered until nobody in it was missed for so long.
REMEMBERED_MILLISECONDS = 60_000

OVER = text(f"""
SELECT a.id FROM unnest(CAST(:ids AS uuid[])) AS a(id) LEFT JOIN jobs j USING (id)
WHERE j.id IS NULL OR j.state IN ({in_sql(CLOSED)})
""")
WAITING = text("""
SELECT id FROM jobs WHERE waiting_for = 'concurrency' AND action = :action AND due_at > clock_timestamp()
ORDER BY id LIMIT :batch
""")
# With what it takes to ring for them.
LOST = text("""
SELECT j.id, j.queue, j.priority, j.traceparent, d.request_id,
  extract(epoch FROM j.due_at - clock_timestamp()) AS seconds
FROM jobs j JOIN decisions d ON d.job_id = j.id
WHERE j.id = ANY(:ids) AND j.waiting_for = 'concurrency' AND j.due_at > clock_timestamp()
ORDER BY j.id
""")
WAKE = text("""
UPDATE jobs SET due_at = statement_timestamp(), ring_at = statement_timestamp()
WHERE id IN (
  SELECT id FROM jobs WHERE id = ANY(:ids) AND waiting_for = 'concurrency' AND due_at > statement_timestamp()
  ORDER BY id FOR UPDATE SKIP LOCKED
)
""")


class Forgotten:
    """Compares them, for one relay, in its thread."""

    def __init__(
        self, redis: SeldomRedis, actions: Collection[ActionSpec], *, ring: Callable[[Sequence[Ring]], object]
    ) -> None:
        """Ask nothing yet.

        Args:
            redis: The relay's. Where the broker is none, there is no line.
            actions: Those that this worker performs.
            ring: Rings for jobs that were given a place; must not block.
        """
        self._limited = [spec for spec in actions if spec.limits.fleet_concurrency is not None]
        self._redis = redis
        self._ring = ring

    def look(self, connection: Connection) -> int:
        """Mend the lines of those actions at which nobody looked just now; return how many jobs are in them again.

        A crash half-way leaves the rest to the next look.

        Args:
            connection: In autocommit.
        """
        if not self._limited:
            return 0
        mended: dict[str, int] = {}
        for spec in self._redis.ask(self._ours) or []:  # each asked by itself: what it refuses is that one's alone
            if count := self._redis.ask(partial(self._look_at, connection=connection, spec=spec)):
                mended[spec.name] = count
        if mended:
            log.info("limit.lined_up", actions=mended)
        return sum(mended.values())

    def _ours(self, client: Any) -> list[ActionSpec]:
        """Return those at which nobody looked just now, and others do not for a while."""
        together = client.pipeline(transaction=False)
        for spec in self._limited:
            together.set(looked_key_of(spec.name), 1, nx=True, px=TURN_MILLISECONDS)
        return [spec for spec, is_ours in zip(self._limited, together.execute(), strict=True) if is_ours]

    def _look_at(self, client: Any, *, connection: Connection, spec: ActionSpec) -> int:
        keys = keys_of(spec.name)
        line, places = (keys[KEYS.index(name)] for name in ("line", "places"))
        found = client.zrange(line, 0, BATCH - 1) + client.zrange(places, 0, BATCH - 1)
        # Whose place it is already has the worker's name behind the job's.
        next_ones = [UUID(member.decode()) for member in found if b" " not in member]
        over = [*connection.execute(OVER, {"ids": next_ones}).scalars()] if next_ones else []
        # With a limit for each process beside, who waits may stand in the line of one of these.
        alone = spec.limits.max_concurrency is None
        waiting = [*connection.execute(WAITING, {"action": spec.name, "batch": BATCH}).scalars()] if alone else []
        if not next_ones and not waiting:
            return 0
        told = ["", spec.limits.fleet_concurrency, len(over), *map(str, over), *map(str, waiting)]
        lost, *rings = client.register_script(MEND.text)(keys=keys, args=told)
        self._ring_all(spec, rings)
        if not lost:
            return 0
        # Whoever was put into the line, by whichever worker, and waits still.
        before = _ids(client.smembers(lined_key_of(spec.name))).intersection(waiting)
        return self._line_up(client, connection, spec, _ids(lost), before)

    def _line_up(
        self, client: Any, connection: Connection, spec: ActionSpec, lost: Collection[UUID], before: set[UUID]
    ) -> int:
        """Put jobs into the line as they stood in it: woken, all of them would come at once, and in vain.

        Whoever is lost once more may have had his turn, and nobody has come for it, as where its queue has no worker.
        As many as can have had one since are woken, so that they do not have the next places kept for them, too.
        """
        again = sorted(before.intersection(lost))[: spec.limits.fleet_concurrency]
        if again:
            woken = connection.execute(WAKE, {"ids": again}).rowcount
            log.info("limit.woken", action=spec.name, jobs=woken)
        once = {*lost}.difference(again)
        found = connection.execute(LOST, {"ids": [*once]}).all() if once else []
        together, wait = client.pipeline(transaction=False), client.register_script(WAIT.text)
        for row in found:
            ring = Ring(row.id, spec.name, row.queue, row.priority, row.traceparent, row.request_id, spec.ring_size)
            patience = round((float(row.seconds) + RESERVED_SECONDS) * SECOND)
            told = ["", spec.limits.fleet_concurrency, str(row.id), order_of(row.id), patience, payload_of(ring)]
            wait(keys=keys_of(spec.name), args=told, client=together)
        answers = together.execute(raise_on_error=False)
        self._ring_all(spec, [payload for answer in answers if isinstance(answer, list) for payload in answer])
        lined = {row.id for row, answer in zip(found, answers, strict=True) if isinstance(answer, list)}
        _remember(client, lined_key_of(spec.name), before.difference(again) | lined)
        refused = [answer for answer in answers if not isinstance(answer, list)]
        if refused:  # by a Redis that is full, say; those who have a place by then are rung
            raise refused[0]
        return len(found)

    def _ring_all(self, spec: ActionSpec, payloads: Sequence[bytes | None]) -> None:
        if rings := rings_of(spec.name, payloads):
            self._ring(rings)


def _ids(members: Iterable[bytes]) -> set[UUID]:
    return {UUID(member.decode()) for member in members}


def _remember(client: Any, key: str, lined: Collection[UUID]) -> None:
    together = client.pipeline()
    together.delete(key)
    if lined:
        together.sadd(key, *map(str, lined))
        together.pexpire(key, REMEMBERED_MILLISECONDS)
    together.execute()

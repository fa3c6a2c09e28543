"""A worker process for the tests of limits: takes rings off a list, runs what is admitted, holds what is not.

Redis stands in for broker and ledger: ``rings`` is the queue; a job is claimed by one at a time and done once.
Started as ``python -m tests.integration.limited_process URL NAME PLACES SECONDS``, it waits for a word in ``go``; each
job takes up to so many seconds.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from redis.asyncio import Redis

from producer.ring import Ring
from tests.integration.limited import job, limited
from worker.limits import Limits

AT_ONCE = 50
LEASE_SECONDS, RENEW_SECONDS = 1.0, 0.2


class Process:
    """Fifty jobs at a time; every one that runs counts itself, and the most there ever were."""

    def __init__(self, url: str, name: str, places: int, seconds: float) -> None:
        self.seconds = seconds
        self.redis: Any = Redis.from_url(url, decode_responses=True)
        self.limits = Limits(url, worker=name, lease_seconds=LEASE_SECONDS, ring=self.ring)
        self.spec = limited(fleet_concurrency=places)
        self.tasks: set[asyncio.Task[Any]] = set()
        self.running: set[UUID] = set()

    async def main(self) -> None:
        await self.redis.rpush("ready", "ready")
        await self.redis.blpop("go")
        self.begin(self.renew())
        await asyncio.gather(*(self.work() for _ in range(AT_ONCE)))
        await self.limits.close()
        await self.redis.aclose()

    async def work(self) -> None:
        while (found := await self.redis.blpop("rings", 20)) is not None and found[1] != "stop":
            number = int(found[1])
            if await self.redis.set(f"claimed:{number}", 1, nx=True):
                await self.attempt(number)

    async def attempt(self, number: int) -> None:
        blocked = await self.limits.admit(self.spec, job(number))
        if blocked is None:
            self.running.add(job(number).job_id)
            running = await self.redis.incr("running")
            await self.redis.zadd("most", {"running": running}, gt=True)
            await asyncio.sleep(self.seconds * (number % 10) / 10)  # the action's work
            await self.redis.decr("running")
            self.running.discard(job(number).job_id)
            await self.redis.rpush("done", number)
        else:
            await self.redis.delete(f"claimed:{number}")
            await self.redis.incr("holds")
            self.begin(self.ring_later(blocked.delay, number))
        await self.limits.release(self.spec, job(number).job_id)

    async def renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            await self.limits.renew(self.running)

    def ring(self, rings: Sequence[Ring]) -> None:
        self.begin(self.redis.rpush("rings", *(ring.job_id.int >> 80 for ring in rings)))

    async def ring_later(self, seconds: float, number: int) -> None:
        await asyncio.sleep(seconds)
        await self.redis.rpush("rings", number)

    def begin(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


if __name__ == "__main__":
    asyncio.run(Process(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])).main())

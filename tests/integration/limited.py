"""Workers that keep limits, on a clock that tests move, and what the tests ask them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import redis

from producer.ring import Ring, ahead
from tasks import ActionSpec
from tests.unit.test_spec import plain, spec_of
from worker.limits import Blocked, Limits
from worker.limits_in_redis import keys_of

LEASE_SECONDS = 30.0


@dataclass(slots=True)
class Clock:
    """Everybody's clock, Redis's included."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Worker:
    """One worker's limits, and the rings that it sent."""

    limits: Limits
    rung: list[Ring] = field(default_factory=list)

    async def admits(self, spec: ActionSpec, job: Ring) -> bool:
        """Ask for the job; end its hold, as a runner does once it is in the ledger."""
        blocked = await self.limits.admit(spec, job)
        if blocked is not None:
            await self.limits.release(spec, job.job_id)
        return blocked is None

    async def asks(self, spec: ActionSpec, job: Ring) -> Blocked:
        """Ask for a job that is blocked, and end its hold."""
        blocked = await self.limits.admit(spec, job)
        assert blocked is not None
        await self.limits.release(spec, job.job_id)
        return blocked

    def rang(self) -> list[Ring]:
        """The rings since the last look."""
        rung, self.rung[:] = list(self.rung), []
        return rung


@asynccontextmanager
async def workers(url: str, *names: str, clock: Clock | None = None, **options: Any) -> AsyncIterator[list[Worker]]:
    """Start one `Limits` a name; without jitter."""
    made: list[Worker] = []
    for name in names:
        rung: list[Ring] = []
        settings: dict[str, Any] = {"lease_seconds": LEASE_SECONDS, "jitter": lambda: 0.0, "clock": clock} | options
        made.append(Worker(Limits(url, worker=name, ring=rung.extend, **settings), rung))
    try:
        yield made
    finally:
        for worker in made:
            await worker.limits.close()


def limited(name: str = "test.it", **limits: Any) -> ActionSpec:
    return spec_of(plain, name=name, limits=limits)


def job(number: int) -> Ring:
    """A job by the order in which it was accepted."""
    return Ring(UUID(int=(number << 80) | number), "test.it", "actions", 5, f"00-{number}", "request “7”", 100)


def woken(ring: Ring) -> Ring:
    """Return the ring with which the job of this one is told of its place: the same, ahead of its queue."""
    return replace(ring, priority=ahead(ring.priority))


def jobs(count: int, first: int = 1) -> list[Ring]:
    return [job(number) for number in range(first, first + count)]


def kept(url: str, spec: ActionSpec) -> dict[str, int]:
    """How much Redis keeps of an action, by key."""
    with redis.Redis.from_url(url) as client:
        sizes = {"hash": client.hlen, "zset": client.zcard}
        names = {key.rpartition(":")[2]: key for key in keys_of(spec.name)}
        kinds = {name: client.type(key).decode() for name, key in names.items()}
        return {name: int(sizes[kind](names[name])) for name, kind in kinds.items() if kind != "none"}


def most_within(moments: list[float], seconds: float) -> int:
    """The largest number of moments in any window of so many seconds."""
    ordered = sorted(moments)
    first, most = 0, 0
    for last, moment in enumerate(ordered):
        while ordered[first] <= moment - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def on_the_grid(seconds: float) -> float:
    """As a hold is written: whole milliseconds, rounded up."""
    return math.ceil(round(seconds * 1e6) / 1000) / 1000

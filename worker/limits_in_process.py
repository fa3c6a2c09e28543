"""The limits that one worker process keeps by itself: what runs in it, and the rate where Redis cannot be asked."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field
from uuid import UUID

from producer.ring import Ring
from tasks import ActionSpec
from worker.limits_in_redis import (
    EARLY_SECONDS,
    LONGEST_SECONDS,
    LONGEST_WAIT_SECONDS,
    MISSED_SECONDS,
    SHORTEST_SECONDS,
    TYPICAL_SECONDS,
)

SECOND = 1_000_000
# A ring for a place in this process may be taken up by another; after so long, and then twice as long each time, the
# place is offered to the next.
OFFER_SECONDS, LONGEST_OFFER_SECONDS = 0.1, 2.0


@dataclass(slots=True)
class Room:
    """The attempts at one action in this process, and the jobs that wait for one of them to end. Times in seconds.

    Attributes:
        running: When each began.
        offering: Rings the next one where whoever was rung for a place here has not come; None where nobody was.
        pause: Seconds until that; doubles each time that nobody comes.
    """

    spec: ActionSpec
    running: dict[UUID, float] = field(default_factory=dict)
    offering: asyncio.TimerHandle | None = None
    pause: float = OFFER_SECONDS
    _typical: float | None = None
    _line: list[UUID] = field(default_factory=list)
    _waiting: dict[UUID, tuple[Ring, float]] = field(default_factory=dict)

    @property
    def places(self) -> int:
        """How many more may run here. The fleet's limit counts, too: without Redis it is all there is to go by."""
        limits = self.spec.limits
        given = [limit for limit in (limits.max_concurrency, limits.fleet_concurrency) if limit is not None]
        return max(0, min(given) - len(self.running)) if given else 0

    def enter(self, job_id: UUID, now: float) -> None:
        """Begin an attempt."""
        self.running[job_id] = now
        self.pause = OFFER_SECONDS
        self._waiting.pop(job_id, None)

    def leave(self, job_id: UUID, now: float) -> float | None:
        """End an attempt; return how long it ran, or None where it did not."""
        began = self.running.pop(job_id, None)
        if began is None:
            return None
        held = now - began
        self._typical = held if self._typical is None else self._typical + (held - self._typical) / 8
        return held

    def delay(self, limit: int) -> float:
        """Return after how long a job that came last should look again by itself."""
        typical = TYPICAL_SECONDS if self._typical is None else self._typical
        typical = min(max(typical, SHORTEST_SECONDS), LONGEST_SECONDS)
        return min((1 + len(self._waiting) // limit) * 2 * typical, LONGEST_WAIT_SECONDS)

    def wait(self, ring: Ring, until: float) -> None:
        """Put a job into the line, for no longer than until it looks again by itself."""
        if ring.job_id not in self._waiting:
            heapq.heappush(self._line, ring.job_id)
        self._waiting[ring.job_id] = (ring, until)

    def next(self, now: float) -> Ring | None:
        """Take the job that was accepted first out of the line; None where nobody waits."""
        while self._line:
            ring, until = self._waiting.pop(heapq.heappop(self._line), (None, 0.0))
            if ring is not None and until > now:
                return ring
        return None


@dataclass(slots=True)
class Bucket:
    """A rate, kept as `worker.limits_in_redis.ADMIT` keeps it. Times in microseconds."""

    spent: int = 0
    interval: int = 0
    came: int = 0
    booked: dict[UUID, int] = field(default_factory=dict)  # in the order of their times: each is after the last

    def too_early(self, job_id: UUID, interval: int, burst: int, now: int) -> int:
        """Return for how long it is too early for the job, having booked its time; 0 where it is not."""
        if self.spent > now + (burst + 1) * interval:
            self.spent = 0
        free_at, slot = self.spent - (burst - 1) * interval, self.booked.get(job_id)
        if slot is not None:
            if slot > now + EARLY_SECONDS * SECOND:
                return slot - now
            self.came = now
            if free_at <= now + interval:
                return 0
            del self.booked[job_id]
        elif self._are_gone(interval, now):
            self.booked.clear()
        self.interval = interval
        slot = max(free_at, next(reversed(self.booked.values())) + interval if self.booked else 0)
        if slot <= now:
            return 0
        self.booked[job_id] = slot
        return slot - now

    def spend(self, job_id: UUID, now: int) -> None:
        """Count an attempt that begins."""
        self.spent = max(self.spent, now) + self.interval
        self.booked.pop(job_id, None)

    def _are_gone(self, interval: int, now: int) -> bool:
        missed = now - max(MISSED_SECONDS * SECOND, interval * 3)
        first = next(iter(self.booked.values()), now)
        return interval != self.interval or (first < missed and self.came < missed)

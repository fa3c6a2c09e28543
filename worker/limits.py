"""The limits of actions: how much of one may run, in this process and in the whole fleet, and how often.

A job over a limit is held: it waits in the ledger, spends no attempt and takes nobody's place. One over the rate has
booked the time at which it comes back. One over a concurrency stands in a line, in the order of acceptance, and is rung
as soon as it has a place; where the line is lost, worker/forgotten.py finds it.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from producer.broker import is_redis
from producer.ring import Ring, ahead
from tasks import ActionSpec
from worker.fleet import AWAY_SECONDS, Away, Fleet, Script
from worker.limits_in_process import LONGEST_OFFER_SECONDS, Bucket, Room
from worker.limits_in_redis import ADMIT, GIVE_UP, RELEASE, RENEW, RESERVED_SECONDS, WAIT, keys_of
from worker.log import log

SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Blocked:
    """That an attempt must not begin now.

    Attributes:
        waiting_for: What the job waits for.
        delay: Seconds until it should come back by itself.
        why: For the event; docs/retries-and-breakers.md names them all.
    """

    waiting_for: Literal["concurrency", "rate"]
    delay: float
    why: str


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A blocked job whose hold is not in the ledger yet.

    Attributes:
        seconds: For how long it is worth waking.
        here: Whether it waits for a place in this very process.
    """

    ring: Ring
    seconds: float
    here: bool


class Limits:
    """The limits as one worker process keeps them, on its loop. Connects at the first use."""

    def __init__(
        self,
        redis_url: str,
        *,
        worker: str,
        lease_seconds: float,
        ring: Callable[[Sequence[Ring]], object],
        ring_here: Callable[[Sequence[Ring]], object] | None = None,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Connect nothing yet.

        Args:
            redis_url: The broker's. Where that is no Redis, it is away for good.
            worker: A name that no other living process has.
            lease_seconds: How long a place outlives a worker that renews it no more.
            ring: Rings for jobs that have a place now; must not block.
            ring_here: The same where the place is in this very process; None is `ring`.
            jitter: Draws from [0, 1); spreads those that come back by themselves.
            clock: Seconds; None is Redis's clock for what is there, and the monotonic one for what is here.
        """
        self._fleet = Fleet(redis_url, on_away=_log_away)
        self._worker, self._lease_us = worker, round(lease_seconds * SECOND)
        self._ring, self._ring_here = ring, ring_here or ring
        self._jitter, self._clock = jitter, clock
        self._rooms: dict[str, Room] = {}
        self._buckets: dict[str, Bucket] = {}
        self._waiting: dict[UUID, _Waiting] = {}

    def serve_here(self, ring_here: Callable[[Sequence[Ring]], object]) -> None:
        """Have jobs for which a place in this process is free performed here: a ring may be anybody's to answer."""
        self._ring_here = ring_here

    async def admit(self, spec: ActionSpec, ring: Ring) -> Blocked | None:
        """Say whether an attempt may begin, and take its place if so; whatever the answer, `release` has to follow.

        Returns:
            None where it may. That costs nothing for an action without limits, and nothing in Redis for one with a
            limit per process alone; else one round trip, shared by all who ask at the same time.
        """
        limits = spec.limits
        if not limits.are_any:
            return None
        room = self._rooms.get(spec.name) or self._rooms.setdefault(spec.name, Room(spec))
        if limits.max_concurrency is not None and len(room.running) >= limits.max_concurrency:
            return self._full_here(room, ring, limits.max_concurrency, "worker limit reached")
        room.enter(ring.job_id, self._now())  # before anything is awaited, or many would see the same last place
        if not limits.are_fleet_wide:
            return None
        try:
            answer = await self._run(ADMIT, spec, *self._asked(spec, ring))
        except Away:
            blocked = self._admit_alone(room, ring)
        else:
            self._buckets.pop(spec.name, None)
            blocked = self._answered(spec, ring, answer)
        if blocked is not None:
            room.running.pop(ring.job_id, None)  # which another attempt at it in this process may have left meanwhile
            self._hand_over_here(room)
        return blocked

    async def release(self, spec: ActionSpec, job_id: UUID) -> None:
        """Follow up an `admit` once the attempt's outcome, or the hold, is in the ledger. Safe twice, and without one.

        A place goes to the job that waits for one and was accepted first, and that job is rung. A job that was
        blocked is put into the line: only now, for before its hold is written a ring would find it claimed.
        """
        waiting, room = self._waiting.pop(job_id, None), self._rooms.get(spec.name)
        if room is None:
            return
        if waiting is not None and not waiting.here:
            patience = round(waiting.seconds * SECOND)
            await self._hand_over(WAIT, spec, str(job_id), order_of(job_id), patience, payload_of(waiting.ring))
        elif waiting is not None:
            room.wait(waiting.ring, self._now() + waiting.seconds)
            self._hand_over_here(room)
        elif (held := room.leave(job_id, self._now())) is not None:
            self._hand_over_here(room)
            if spec.limits.fleet_concurrency is not None:
                await self._hand_over(RELEASE, spec, self._member(job_id), round(held * SECOND))

    async def give_up(self, spec: ActionSpec, job_id: UUID, *, hands_on: bool) -> None:
        """Give back the place that is kept for a job whose turn it is, where it can be of no use to it.

        Args:
            spec: Of its action.
            job_id: The job.
            hands_on: Whether it may be of use to the next in line, who is rung then; else whoever asks next takes it.
        """
        if spec.limits.are_fleet_wide:
            await self._hand_over(GIVE_UP, spec, str(job_id), int(hands_on))
        if hands_on and (room := self._rooms.get(spec.name)) is not None:
            self._hand_over_here(room)

    async def renew(self, job_ids: Collection[UUID]) -> None:
        """Keep the fleet's places of these jobs for another lease; one that Redis has lost is there again."""
        for room in list(self._rooms.values()):
            running = [self._member(job_id) for job_id in job_ids if job_id in room.running]
            if running and room.spec.limits.fleet_concurrency is not None:
                await self._hand_over(RENEW, room.spec, self._lease_us, *running)

    async def close(self) -> None:
        """Hang up, and ring nobody any more."""
        for room in self._rooms.values():
            if room.offering is not None:
                room.offering.cancel()
        await self._fleet.close()

    # ---- with Redis --------------------------------------------------------------------------------------------

    async def _run(self, script: Script, spec: ActionSpec, *arguments: Any) -> Any:
        now = "" if self._clock is None else self._now_us()
        return await self._fleet.run(script, keys_of(spec.name), [now, spec.limits.fleet_concurrency or 0, *arguments])

    async def _hand_over(self, script: Script, spec: ActionSpec, *arguments: Any) -> None:
        try:
            self._ring_all(spec, await self._run(script, spec, *arguments))
        except Away:
            return  # a place that was not given back is lost with its lease, and whoever waits comes back by itself

    def _asked(self, spec: ActionSpec, ring: Ring) -> tuple[Any, ...]:
        limits, job_id = spec.limits, ring.job_id
        rate = (limits.interval_us, limits.burst)
        return (str(job_id), self._member(job_id), *rate, self._lease_us, order_of(job_id))

    def _answered(self, spec: ActionSpec, ring: Ring, answer: Sequence[Any]) -> Blocked | None:
        match answer:
            case [b"rate", wait]:
                return _over_the_rate(wait)
            case [b"concurrency", wait]:
                return self._in_line(ring, wait / SECOND, "fleet limit reached", here=False)
        self._ring_all(spec, answer[1:])
        return None

    def _ring_all(self, spec: ActionSpec, payloads: Sequence[bytes | None]) -> None:
        if rings := rings_of(spec.name, payloads):
            self._ring(rings)

    def _member(self, job_id: UUID) -> str:
        # With the worker's name: one that lost the job while it stood still cannot give up its new owner's place.
        return f"{job_id} {self._worker}"

    # ---- in this process ---------------------------------------------------------------------------------------

    def _admit_alone(self, room: Room, ring: Ring) -> Blocked | None:
        """Decide without Redis, as the action declares."""
        limits = room.spec.limits
        if limits.limits_without_redis == "allow":
            return None
        if limits.limits_without_redis == "hold":
            waiting_for: Literal["concurrency", "rate"] = "rate" if limits.fleet_concurrency is None else "concurrency"
            return Blocked(waiting_for, round(2 * AWAY_SECONDS * (1 + self._jitter()), 3), "limits unknown")
        bucket, now = self._buckets.setdefault(room.spec.name, Bucket()), self._now_us()
        if limits.interval_us and (wait := bucket.too_early(ring.job_id, limits.interval_us, limits.burst, now)):
            return _over_the_rate(wait)
        # The room has this job in it already.
        if limits.fleet_concurrency is not None and len(room.running) > limits.fleet_concurrency:
            return self._full_here(room, ring, limits.fleet_concurrency, "fleet limit reached")
        bucket.spend(ring.job_id, now)
        return None

    def _full_here(self, room: Room, ring: Ring, limit: int, why: str) -> Blocked:
        return self._in_line(ring, room.delay(limit), why, here=True)

    def _in_line(self, ring: Ring, seconds: float, why: str, *, here: bool) -> Blocked:
        delay = round(seconds * (1 + self._jitter() / 4), 3)
        self._waiting[ring.job_id] = _Waiting(ring, delay + RESERVED_SECONDS, here)
        return Blocked("concurrency", delay, why)

    def _hand_over_here(self, room: Room, places: int = 1) -> None:
        now = self._now()
        rings = [ring for _ in range(min(places, room.places)) if (ring := room.next(now)) is not None]
        if not rings:
            return
        self._ring_here(rings)
        if room.offering is None:
            room.offering = asyncio.get_running_loop().call_later(room.pause, self._offer_again, room)

    def _offer_again(self, room: Room) -> None:
        room.offering, room.pause = None, min(2 * room.pause, LONGEST_OFFER_SECONDS)
        self._hand_over_here(room, room.places)

    def _now(self) -> float:
        return time.monotonic() if self._clock is None else self._clock()

    def _now_us(self) -> int:
        return round(self._now() * SECOND)


def doubts(redis_url: str, actions: Mapping[str, ActionSpec]) -> list[str]:
    """Return what will surprise about these actions' limits where the broker is no Redis, in a sentence each."""
    if is_redis(redis_url):
        return []
    becomes = {"local": "each process keeps it by itself", "hold": "nothing of it will ever run", "allow": "it is none"}
    return [
        f"{spec.name} has a limit for the whole fleet, which takes a Redis as the broker:"
        f" {becomes[spec.limits.limits_without_redis]}"
        for spec in actions.values()
        if spec.limits.are_fleet_wide
    ]


def _over_the_rate(wait_us: int) -> Blocked:
    # Rounded up: one that comes back too early would only wait again.
    return Blocked("rate", math.ceil(wait_us / 1000) / 1000, "rate limit reached")


def order_of(job_id: UUID) -> int:
    """Return a job's place in the line: who was accepted first is first."""
    return job_id.int >> 80  # the milliseconds at which it was accepted: ids are time-ordered (RFC 9562, version 7)


def payload_of(ring: Ring) -> str:
    """Return what Redis keeps for a job in line, so that whoever has a place for it can ring for it."""
    return json.dumps(
        [str(ring.job_id), ring.queue, ring.priority, ring.traceparent, ring.request_id, ring.together],
        ensure_ascii=False,
    )


def rings_of(action: str, payloads: Sequence[bytes | None]) -> list[Ring]:
    """Return the rings that Redis kept for jobs in line; it may have lost some."""
    return [_from_payload(action, payload) for payload in payloads if payload is not None]


def _from_payload(action: str, payload: bytes) -> Ring:
    job_id, queue, priority, *rest = json.loads(payload)
    return Ring(UUID(job_id), action, queue, ahead(priority), *rest)


def _log_away(error: str) -> None:
    log.warning("limits.unshared", error=error, for_seconds=AWAY_SECONDS)

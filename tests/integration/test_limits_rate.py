"""How often an action begins in a fleet: several workers, one Redis, a clock to be moved."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer.ring import Ring
from tasks import ActionSpec
from tasks._limits import ActionLimits
from tests.integration.limited import Clock, Worker, job, jobs, kept, limited, most_within, on_the_grid, workers
from tests.loops import on_a_loop, until
from worker.dev.servers import Valkey
from worker.limits import Blocked
from worker.limits_in_process import Bucket
from worker.limits_in_redis import ADMIT, keys_of

FIFTY = limited(rate_limit="50/s")


@dataclass(slots=True)
class Day:
    """What became of jobs that came, were held and came back, each so much later than it was due."""

    began: dict[UUID, float] = field(default_factory=dict)
    holds: Counter[UUID] = field(default_factory=Counter)

    async def run(
        self,
        spec: ActionSpec,
        fleet: list[Worker],
        clock: Clock,
        coming: list[tuple[float, Ring]],
        late: Callable[[float], float] = lambda due: due,
    ) -> None:
        """Have jobs come at their times, until all have begun. `late` says when who is due at a time comes back."""
        line = [(at, number, each) for number, (at, each) in enumerate(coming)]
        heapq.heapify(line)
        while line:
            at, number, each = heapq.heappop(line)
            clock.now = max(clock.now, at)
            blocked = await fleet[number % len(fleet)].limits.admit(spec, each)
            await fleet[number % len(fleet)].limits.release(spec, each.job_id)
            if blocked is None:
                self.began[each.job_id] = clock.now
            else:
                self.holds[each.job_id] += 1
                heapq.heappush(line, (late(clock.now + blocked.delay), number, each))


@on_a_loop
async def test_of_a_hundred_at_once_at_fifty_a_second_half_begin_and_half_have_booked_a_time_each(
    redis_url: str,
) -> None:
    clock = Clock()
    async with workers(redis_url, "a", "b", clock=clock) as fleet:
        crowd = jobs(100)
        answers = await asyncio.gather(*(fleet[n % 2].limits.admit(FIFTY, each) for n, each in enumerate(crowd)))
    held = sorted((answer for answer in answers if answer is not None), key=lambda blocked: blocked.delay)
    assert held == [Blocked("rate", on_the_grid(0.02 * n), "rate limit reached") for n in range(1, 51)]


def a_little_later(due: float) -> float:
    return due + (due * 1e6 % 50) / 1000  # up to 50 ms


def at_the_next_second(due: float) -> float:
    return -(-due // 1)  # as the relay looks


@pytest.mark.parametrize(
    "late", [lambda due: due, a_little_later, at_the_next_second], ids=["on time", "late", "relay"]
)
@on_a_loop
async def test_everybody_comes_back_at_the_booked_time_and_nobody_is_held_twice(
    redis_url: str, late: Callable[[float], float]
) -> None:
    clock, day = Clock(), Day()
    start = clock.now
    async with workers(redis_url, "a", "b", "c", clock=clock) as fleet:
        await day.run(FIFTY, fleet, clock, [(start, each) for each in jobs(1_000)], late)
    assert set(day.holds.values()) == {1}
    assert len(day.holds) == 950
    assert max(day.began.values()) <= late(start + 950 / 50)
    for seconds in (0.1, 1.0, 5.0):
        assert most_within(list(day.began.values()), seconds) <= 50 * seconds + 50 + 1
    assert kept(redis_url, FIFTY) == {"state": 3}


@on_a_loop
async def test_those_who_come_steadily_and_slowly_enough_are_never_held(redis_url: str) -> None:
    clock, day = Clock(), Day()
    async with workers(redis_url, "a", clock=clock) as fleet:
        await day.run(FIFTY, fleet, clock, [(clock.now + n * 0.02, each) for n, each in enumerate(jobs(300))])
    assert not day.holds


@on_a_loop
async def test_newcomers_stand_behind_those_who_have_booked(redis_url: str) -> None:
    clock = Clock()
    async with workers(redis_url, "a", "b", clock=clock) as (a, b):
        for each in jobs(100):
            await a.admits(FIFTY, each)
        clock.now += 0.5
        assert (await b.asks(FIFTY, job(101))).delay == on_the_grid(0.52)


@on_a_loop
async def test_one_who_is_rung_too_early_keeps_the_booked_time(redis_url: str) -> None:
    clock = Clock()
    async with workers(redis_url, "a", clock=clock) as (a,):
        for each in jobs(100):
            await a.admits(FIFTY, each)
        clock.now += 0.5
        assert (await a.asks(FIFTY, job(100))).delay == on_the_grid(0.5)
        assert (await a.asks(FIFTY, job(100))).delay == on_the_grid(0.5)
        clock.now += 0.5
        assert await a.admits(FIFTY, job(100))


@on_a_loop
async def test_a_fleet_that_comes_back_after_hours_does_not_begin_with_everything_that_was_due(redis_url: str) -> None:
    clock, day = Clock(), Day()
    async with workers(redis_url, "a", "b", clock=clock) as fleet:
        for each in jobs(500):
            await fleet[0].admits(FIFTY, each)
        clock.now += 3_600
        back = clock.now
        await day.run(FIFTY, fleet, clock, [(back, each) for each in jobs(450, first=51)])
    assert most_within(list(day.began.values()), 0.01) <= 51
    assert max(day.began.values()) - back == pytest.approx(400 / 50, abs=0.1)  # and at the full rate
    assert set(day.holds.values()) == {1}


@on_a_loop
async def test_a_line_of_jobs_that_were_all_cancelled_is_given_up_after_half_a_minute(redis_url: str) -> None:
    clock = Clock()
    async with workers(redis_url, "a", clock=clock) as (a,):
        for each in jobs(2_000):
            await a.admits(FIFTY, each)  # 39 seconds' worth
        clock.now += 31
        assert await a.admits(FIFTY, job(2_001))


@on_a_loop
async def test_one_that_was_cancelled_does_not_cost_the_others_their_times(redis_url: str) -> None:
    clock, day = Clock(), Day()
    start = clock.now
    async with workers(redis_url, "a", clock=clock) as fleet:
        for each in jobs(60):
            await fleet[0].admits(FIFTY, each)  # and these ten are never seen again
        later = [(start + n / 10, each) for n, each in enumerate(jobs(1_000, first=100))]
        await day.run(FIFTY, fleet, clock, later)
    assert set(day.holds.values()) <= {1}


@on_a_loop
async def test_a_rate_that_was_raised_holds_nobody_back_for_what_the_old_one_had_booked(redis_url: str) -> None:
    clock = Clock()
    async with workers(redis_url, "a", clock=clock) as (a,):
        for each in jobs(100):
            await a.admits(limited(rate_limit="10/h"), each)  # up to ten hours ahead
        clock.now += 1
        assert await a.admits(FIFTY, job(101))


@on_a_loop
async def test_a_clock_that_goes_back_holds_nobody(redis_url: str) -> None:
    clock = Clock()
    async with workers(redis_url, "a", clock=clock) as (a,):
        for each in jobs(50):
            await a.admits(FIFTY, each)
        clock.now -= 3_600
        assert await a.admits(FIFTY, job(51))


@on_a_loop
async def test_losing_everything_in_redis_costs_one_burst_and_one_more_hold_at_most(own_valkey: Valkey) -> None:
    clock, day = Clock(), Day()
    async with workers(own_valkey.url, "a", "b", clock=clock) as fleet:
        for each in jobs(200):
            await fleet[0].admits(FIFTY, each)
        with redis.Redis.from_url(own_valkey.url) as client:
            client.flushall()
        start = clock.now
        await day.run(FIFTY, fleet, clock, [(start + n / 50, each) for n, each in enumerate(jobs(150, first=51), 1)])
        crowd = [(clock.now, each) for each in jobs(100, first=301)]
        await day.run(FIFTY, fleet, clock, crowd)
    assert len(day.began) == 250
    assert set(day.holds.values()) <= {1}


@on_a_loop
async def test_one_a_minute_is_one_a_minute(redis_url: str) -> None:
    clock, day = Clock(), Day()
    slow = limited(rate_limit="1/m")
    async with workers(redis_url, "a", "b", clock=clock) as fleet:
        await day.run(slow, fleet, clock, [(clock.now, each) for each in jobs(20)], a_little_later)
    moments = sorted(day.began.values())
    assert [b - a for a, b in pairwise(moments)] == pytest.approx([60] * 19, abs=0.06)
    assert set(day.holds.values()) == {1}


@on_a_loop
async def test_a_job_without_a_place_spends_nothing_of_the_rate(redis_url: str) -> None:
    clock, both = Clock(), limited(rate_limit="2/s", fleet_concurrency=1)
    async with workers(redis_url, "a", clock=clock) as (a,):
        assert await a.admits(both, job(1))
        for _ in range(5):
            assert (await a.asks(both, job(2))).waiting_for == "concurrency"
        await a.limits.release(both, job(1).job_id)
        assert await a.admits(both, job(2))
        assert (await a.asks(both, job(3))).waiting_for == "rate"


@on_a_loop
async def test_a_job_over_the_rate_takes_nobody_s_place(redis_url: str) -> None:
    clock, both = Clock(), limited(rate_limit="1/s", fleet_concurrency=1)
    async with workers(redis_url, "a", clock=clock) as (a,):
        assert await a.admits(both, job(1))
        await a.limits.release(both, job(1).job_id)
        assert (await a.asks(both, job(2))).waiting_for == "rate"
        clock.now += 1
        assert await a.admits(both, job(2))


async def is_past(moment: float) -> bool:
    return time.monotonic() >= moment


@on_a_loop
async def test_on_redis_s_own_clock_a_hundred_at_fifty_a_second_take_a_second(redis_url: str) -> None:
    holds: Counter[UUID] = Counter()
    began: list[float] = []

    async def come(worker: Worker, each: Ring) -> None:
        while (blocked := await worker.limits.admit(FIFTY, each)) is not None:
            holds[each.job_id] += 1
            await until(partial(is_past, time.monotonic() + blocked.delay))
        began.append(time.monotonic())

    async with workers(redis_url, "a", "b", "c", "d") as fleet:
        start = time.monotonic()
        await asyncio.gather(*(come(fleet[n % 4], each) for n, each in enumerate(jobs(100))))
    assert set(holds.values()) == {1}
    assert 1 <= len(holds) <= 50  # some of the first hundred may have come a moment later
    assert max(began) - start > 0.9
    assert most_within(began, 0.5) <= 25 + 50 + 1


steps = st.tuples(st.integers(0, 400) | st.integers(0, 60_000), st.integers(0, 30))


@pytest.mark.parametrize("rate", ["50/s", "3/s", "1/m"])
@given(asked=st.lists(steps, max_size=60))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_process_alone_keeps_the_rate_just_as_redis_does(
    redis_url: str, rate: str, asked: list[tuple[int, int]]
) -> None:
    # Each asks so many milliseconds after the last one, for one of thirty jobs.
    limits, alone, now = ActionLimits(rate_limit=rate), Bucket(), 10**12
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
        for milliseconds, number in asked:
            now += milliseconds * 1_000
            wait = alone.too_early(job(number).job_id, limits.interval_us, limits.burst, now)
            if not wait:
                alone.spend(job(number).job_id, now)
            assert in_redis(client, limits, job(number), now) == ([b"rate", wait] if wait else [b"admitted"])


def in_redis(client: redis.Redis, limits: ActionLimits, each: Ring, now: int) -> Any:
    rate: tuple[Any, ...] = (limits.interval_us, limits.burst)
    arguments = [now, 0, str(each.job_id), f"{each.job_id} a", *rate, 0, 0]
    return client.eval(ADMIT.text, len(keys_of("test.it")), *keys_of("test.it"), *arguments)

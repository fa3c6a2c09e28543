"""How much of an action runs at once in one process, alone and beside the fleet's limit."""

from __future__ import annotations

import asyncio
import time

from tests.integration.limited import Worker, job, jobs, limited, workers
from tests.loops import on_a_loop, until
from worker.dev.servers import Valkey
from worker.limits import Blocked
from worker.limits_in_process import OFFER_SECONDS


@on_a_loop
async def test_a_process_s_places_are_its_own_and_cost_no_round_trip(own_valkey: Valkey) -> None:
    two = limited(max_concurrency=2)
    url = own_valkey.url
    own_valkey.kill()
    async with workers(url, "a", "b") as (a, b):
        for worker, first in ((a, 1), (b, 11)):
            assert await worker.admits(two, job(first))
            assert await worker.admits(two, job(first + 1))
            blocked = await worker.asks(two, job(first + 2))
            assert blocked == Blocked("concurrency", 5.0, "worker limit reached")


@on_a_loop
async def test_a_process_s_place_goes_to_the_job_that_was_accepted_first_and_is_rung_here(redis_url: str) -> None:
    here: list[object] = []
    one = limited(max_concurrency=1)
    async with workers(redis_url, "a", ring_here=here.extend) as (a,):
        assert await a.admits(one, job(1))
        for each in (job(4), job(2), job(3)):
            await a.asks(one, each)
        for number in (1, 2, 3):
            await a.limits.release(one, job(number).job_id)
            assert here[-1] == job(number + 1)
            assert await a.admits(one, job(number + 1))
        assert a.rang() == []
        assert len(here) == 3


@on_a_loop
async def test_both_concurrencies_hold_at_once(redis_url: str) -> None:
    both = limited(max_concurrency=2, fleet_concurrency=3)
    async with workers(redis_url, "a", "b") as (a, b):
        answers = [await a.limits.admit(both, each) for each in jobs(3)]
        assert [blocked and blocked.why for blocked in answers] == [None, None, "worker limit reached"]
        answers = [await b.limits.admit(both, each) for each in jobs(2, first=11)]
        assert [blocked and blocked.why for blocked in answers] == [None, "fleet limit reached"]


@on_a_loop
async def test_a_place_that_the_fleet_refused_is_not_lost_to_this_process(redis_url: str) -> None:
    both = limited(max_concurrency=1, fleet_concurrency=1)
    async with workers(redis_url, "a", "b") as (a, b):
        assert await b.admits(both, job(1))
        asked = [asyncio.ensure_future(a.limits.admit(both, each)) for each in jobs(2, first=2)]
        answers = [blocked and blocked.why for blocked in await asyncio.gather(*asked)]
        assert answers == ["fleet limit reached", "worker limit reached"]
        for each in jobs(2, first=2):
            await a.limits.release(both, each.job_id)
        assert a.rang() == [job(3)]  # it was refused for a moment's sake


@on_a_loop
async def test_a_place_that_was_offered_in_vain_is_offered_to_the_next_until_somebody_takes_it(redis_url: str) -> None:
    one = limited(max_concurrency=1)
    async with workers(redis_url, "a") as (a,):
        assert await a.admits(one, job(1))
        for each in jobs(4, first=2):
            await a.asks(one, each)
        await a.limits.release(one, job(1).job_id)
        await until(lambda: has_rung(a, 3))  # the first two were taken up by other processes
        assert a.rang() == jobs(3, first=2)
        assert await a.admits(one, job(4))
        moment = time.monotonic() + 5 * OFFER_SECONDS
        await until(lambda: is_past(moment))
        assert a.rang() == []
        await a.limits.release(one, job(4).job_id)
        assert a.rang() == [job(5)]


async def has_rung(worker: Worker, count: int) -> bool:
    return len(worker.rung) >= count


async def is_past(moment: float) -> bool:
    return time.monotonic() > moment

"""How much of an action runs at once in a fleet, and who is next: several workers, one Redis, a clock to be moved."""

from __future__ import annotations

import asyncio
import itertools

import pytest
import redis

from tests.integration.limited import LEASE_SECONDS, Clock, Worker, job, jobs, kept, limited, woken, workers
from tests.loops import on_a_loop, until
from worker.dev.servers import Valkey
from worker.limits_in_redis import RESERVED_SECONDS, keys_of

TWO = limited(fleet_concurrency=2)
FREE = limited()


@on_a_loop
async def test_an_action_without_limits_is_admitted_without_asking_anybody(redis_url: str) -> None:
    async with workers(redis_url, "a") as (a,):
        assert [await a.limits.admit(FREE, each) for each in jobs(100)] == [None] * 100
        for each in jobs(100):
            await a.limits.release(FREE, each.job_id)
    assert kept(redis_url, FREE) == {}


@on_a_loop
async def test_the_fleet_s_places_are_shared_by_all_workers(redis_url: str) -> None:
    async with workers(redis_url, "a", "b", "c") as (a, b, c):
        assert await a.admits(TWO, job(1))
        assert await b.admits(TWO, job(2))
        blocked = await c.asks(TWO, job(3))
        assert (blocked.waiting_for, blocked.why) == ("concurrency", "fleet limit reached")
        await a.limits.release(TWO, job(1).job_id)
        assert a.rang() == [woken(job(3))]
        assert await b.admits(TWO, job(3))


@on_a_loop
async def test_of_a_crowd_that_asks_at_once_as_many_are_admitted_as_there_are_places(redis_url: str) -> None:
    five = limited(fleet_concurrency=5)
    async with workers(redis_url, "a", "b", "c") as fleet:
        crowd = jobs(99)
        admitted = await asyncio.gather(*(fleet[n % 3].limits.admit(five, each) for n, each in enumerate(crowd)))
        assert admitted.count(None) == 5


@on_a_loop
async def test_a_place_goes_to_the_job_that_was_accepted_first_whoever_asked_first(redis_url: str) -> None:
    one = limited(fleet_concurrency=1)
    waiting = jobs(10, first=2)
    async with workers(redis_url, "a", "b") as (a, b):
        assert await a.admits(one, job(1))
        for each in waiting[5:] + waiting[4::-1]:
            await b.asks(one, each)
        served = [job(1)]
        while len(served) <= len(waiting):
            await a.limits.release(one, served[-1].job_id)
            (next_one,) = a.rang()
            assert await a.admits(one, next_one)
            served.append(next_one)
    assert served == [job(1), *map(woken, waiting)]


@on_a_loop
async def test_a_job_that_is_asked_for_again_while_its_lost_attempt_here_lets_go_is_answered_all_the_same(
    redis_url: str,
) -> None:
    one = limited(fleet_concurrency=1)
    async with workers(redis_url, "a", "b") as (a, b):
        assert await b.admits(one, job(1))
        asking = asyncio.create_task(a.limits.admit(one, job(2)))
        await asyncio.sleep(0)
        await a.limits.release(one, job(2).job_id)
        blocked = await asking
        assert blocked is not None
        assert blocked.waiting_for == "concurrency"


@on_a_loop
async def test_nobody_gets_into_a_place_that_is_another_s_turn(redis_url: str) -> None:
    one = limited(fleet_concurrency=1)
    async with workers(redis_url, "a", "b") as (a, b):
        assert await a.admits(one, job(2))
        await b.asks(one, job(3))
        await a.limits.release(one, job(2).job_id)
        await b.asks(one, job(1))  # accepted before, and too late all the same
        assert await b.admits(one, job(3))


async def bring_the_third_its_turn(a: Worker) -> None:
    """Fill both places, line up three more, and free one."""
    assert await a.admits(TWO, job(1))
    assert await a.admits(TWO, job(2))
    for each in jobs(3, first=3):
        await a.asks(TWO, each)
    await a.limits.release(TWO, job(1).job_id)
    assert a.rang() == [woken(job(3))]


@on_a_loop
async def test_a_turn_that_is_given_up_is_whose_who_asks_next_and_nobody_is_rung(redis_url: str) -> None:
    async with workers(redis_url, "a") as (a,):
        await bring_the_third_its_turn(a)
        await a.limits.give_up(TWO, job(3).job_id, hands_on=False)
        await a.limits.give_up(TWO, job(2).job_id, hands_on=False)  # whose place is no turn any more
        await a.limits.give_up(TWO, job(4).job_id, hands_on=False)  # who stands in line
        assert a.rang() == []
        assert kept(redis_url, TWO)["line"] == 1
        assert await a.admits(TWO, job(9))
        assert not await a.admits(TWO, job(10))


@on_a_loop
async def test_a_turn_that_is_given_up_goes_to_the_next_where_that_may_be_of_use_to_it(redis_url: str) -> None:
    async with workers(redis_url, "a") as (a,):
        await bring_the_third_its_turn(a)
        await a.limits.give_up(TWO, job(3).job_id, hands_on=True)
        assert a.rang() == [woken(job(4))]
        assert not await a.admits(TWO, job(9))
        assert await a.admits(TWO, job(4))


@on_a_loop
async def test_a_turn_that_nobody_takes_is_the_next_one_s_after_some_seconds(redis_url: str) -> None:
    one, clock = limited(fleet_concurrency=1), Clock()
    async with workers(redis_url, "a", "b", clock=clock) as (a, b):
        assert await a.admits(one, job(1))
        await b.asks(one, job(2))  # cancelled before its turn comes
        await b.asks(one, job(3))
        await a.limits.release(one, job(1).job_id)
        assert a.rang() == [woken(job(2))]
        clock.now += RESERVED_SECONDS + 0.1
        assert await b.admits(one, job(4))
        await b.limits.release(one, job(4).job_id)
        assert b.rang() == [woken(job(3))]


@on_a_loop
async def test_a_job_is_put_into_the_line_only_once_its_hold_can_be_read(redis_url: str) -> None:
    one = limited(fleet_concurrency=1)
    async with workers(redis_url, "a", "b") as (a, b):
        assert await a.admits(one, job(1))
        assert await b.limits.admit(one, job(2)) is not None
        await a.limits.release(one, job(1).job_id)
        assert a.rang() == []  # a ring would find it claimed
        await b.limits.release(one, job(2).job_id)
        assert b.rang() == [woken(job(2))]  # the place has become free meanwhile


@on_a_loop
async def test_a_ring_that_wakes_a_job_says_all_that_the_first_one_did(redis_url: str) -> None:
    one = limited(fleet_concurrency=1)
    async with workers(redis_url, "a") as (a,):
        await a.admits(one, job(1))
        await a.asks(one, job(2))
        await a.limits.release(one, job(1).job_id)
        assert a.rang() == [woken(job(2))]


@on_a_loop
async def test_a_place_is_free_once_the_lease_of_whoever_died_in_it_is_over(redis_url: str) -> None:
    clock = Clock()
    async with workers(redis_url, "dead", "b", clock=clock) as (dead, b):
        assert await dead.admits(TWO, job(1))
        assert await dead.admits(TWO, job(2))
        clock.now += LEASE_SECONDS - 1
        await b.asks(TWO, job(3))
        await b.asks(TWO, job(4))
        clock.now += 2
        assert await b.admits(TWO, job(3))
        assert b.rang() == [woken(job(4))]  # there are two of them


@on_a_loop
async def test_a_dead_one_s_place_is_free_on_redis_s_own_clock_too(redis_url: str) -> None:
    one = limited(fleet_concurrency=1)
    async with workers(redis_url, "dead", "b", lease_seconds=2) as (dead, b):
        assert await dead.admits(one, job(1))
        assert not await b.admits(one, job(2))
        await until(lambda: b.admits(one, job(2)))


@on_a_loop
async def test_a_place_that_is_renewed_stays(redis_url: str) -> None:
    clock = Clock()
    async with workers(redis_url, "a", "b", clock=clock) as (a, b):
        assert await a.admits(TWO, job(1))
        assert await a.admits(TWO, job(2))
        for _ in range(10):
            clock.now += LEASE_SECONDS * 0.9
            await a.limits.renew([job(1).job_id, job(2).job_id, job(77).job_id])
            await b.asks(TWO, job(3))
        await a.limits.release(TWO, job(1).job_id)
        await a.limits.renew([job(1).job_id])  # a renewal that comes late takes back nothing
        assert await b.admits(TWO, job(3))


@on_a_loop
async def test_a_worker_that_lost_its_job_cannot_give_up_its_new_owner_s_place(redis_url: str) -> None:
    one, clock = limited(fleet_concurrency=1), Clock()
    async with workers(redis_url, "slow", "fast", "c", clock=clock) as (slow, fast, c):
        assert await slow.admits(one, job(1))
        clock.now += LEASE_SECONDS + 1
        assert await fast.admits(one, job(1))  # taken over
        await slow.limits.release(one, job(1).job_id)
        await c.asks(one, job(2))


@on_a_loop
async def test_a_release_may_come_twice_or_for_what_was_never_admitted(redis_url: str) -> None:
    async with workers(redis_url, "a", "b") as (a, b):
        await a.limits.release(TWO, job(9).job_id)
        for each in jobs(2):
            assert await a.admits(TWO, each)
        await b.limits.release(TWO, job(1).job_id)  # not its own
        await b.asks(TWO, job(3))
        await a.limits.release(TWO, job(1).job_id)
        await a.limits.release(TWO, job(1).job_id)
        assert await b.admits(TWO, job(3))
        await b.asks(TWO, job(4))


@on_a_loop
async def test_an_admission_that_was_cut_off_leaves_no_place_behind_once_released(redis_url: str) -> None:
    one = limited(fleet_concurrency=1)
    async with workers(redis_url, "a", "b") as (a, b):
        asked = asyncio.ensure_future(a.limits.admit(one, job(1)))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await a.limits.release(one, job(1).job_id)
        assert await b.admits(one, job(2))


@on_a_loop
async def test_whoever_is_further_down_the_line_looks_by_himself_the_later_within_ten_minutes(redis_url: str) -> None:
    clock = Clock()
    async with workers(redis_url, "a", clock=clock) as (a,):
        for each in jobs(2):
            await a.admits(TWO, each)
        delays = [(await a.asks(TWO, each)).delay for each in jobs(400, first=3)]
    assert delays[:6] == [5.0, 5.0, 10.0, 10.0, 15.0, 15.0]  # nobody knows yet how long an attempt takes
    assert max(delays) == 480.0


@pytest.mark.parametrize(("took", "delay"), [(0.001, 1.0), (4.0, 8.0), (3600.0, 48.0)])
@on_a_loop
async def test_the_next_in_line_looks_by_himself_after_two_usual_attempts_and_within_a_minute(
    redis_url: str, took: float, delay: float
) -> None:
    clock = Clock()
    async with workers(redis_url, "a", clock=clock, lease_seconds=1e5) as (a,):
        await a.admits(TWO, job(1))
        clock.now += took
        await a.limits.release(TWO, job(1).job_id)
        for each in jobs(2, first=2):
            await a.admits(TWO, each)
        assert (await a.asks(TWO, job(4))).delay == delay


@on_a_loop
async def test_those_who_come_back_by_themselves_are_spread(redis_url: str) -> None:
    drawn = itertools.count()
    async with workers(redis_url, "a", jitter=lambda: next(drawn) / 20) as (a,):
        for each in jobs(2):
            await a.admits(TWO, each)
        delays = [(await a.asks(TWO, job(3))).delay for _ in range(20)]
    assert delays == [round(5.0 * (1 + n / 80), 3) for n in range(20)]


@on_a_loop
async def test_no_line_grows_for_ever(redis_url: str) -> None:
    one, clock = limited(fleet_concurrency=1), Clock()
    async with workers(redis_url, "a", clock=clock) as (a,):
        for day in range(5):
            await a.admits(one, job(1))
            for each in jobs(50, first=2 + 50 * day):
                await a.asks(one, each)  # and never comes back
            clock.now += 86_400
            await a.limits.release(one, job(1).job_id)
        assert a.rang() == []
        await a.admits(one, job(1))
        await a.limits.release(one, job(1).job_id)
    assert kept(redis_url, one) == {"state": 1}
    with redis.Redis.from_url(redis_url) as client:
        assert all(client.pttl(key) > 0 for key in client.scan_iter())


@on_a_loop
async def test_losing_everything_in_redis_breaks_nothing_for_good(own_valkey: Valkey) -> None:
    clock = Clock()
    async with workers(own_valkey.url, "a", "b", clock=clock) as (a, b):
        for each in jobs(2):
            assert await a.admits(TWO, each)
        lost = await b.asks(TWO, job(3))
        with redis.Redis.from_url(own_valkey.url) as client:
            client.flushall()
            client.script_flush()
        await a.limits.renew([each.job_id for each in jobs(2)])
        await b.asks(TWO, job(4))  # the places are taken again
        await a.limits.release(TWO, job(1).job_id)
        assert a.rang() == [woken(job(4))]
        await a.limits.release(TWO, job(2).job_id)
        clock.now += lost.delay
        assert await b.admits(TWO, job(3))  # whom nobody could wake came by itself


@on_a_loop
async def test_an_action_s_keys_are_named_after_it(redis_url: str) -> None:
    async with workers(redis_url, "a") as (a,):
        await a.admits(TWO, job(1))
    with redis.Redis.from_url(redis_url) as client:
        assert {key.decode() for key in client.scan_iter()} <= set(keys_of("test.it"))

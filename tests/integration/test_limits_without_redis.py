"""What becomes of the fleet's limits while Redis is away, as each action declares it, and when it is back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.integration.limited import Clock, Worker, job, jobs, limited, on_the_grid, workers
from tests.loops import on_a_loop, until
from worker import fleet
from worker.dev.servers import Valkey
from worker.fleet import TIMEOUT_SECONDS
from worker.limits import Blocked, doubts

MODES = ("local", "hold", "allow")


@contextmanager
def frozen(server: Valkey) -> Iterator[None]:
    """A Redis that takes everything and answers nothing."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def both(mode: str) -> Any:
    return limited(fleet_concurrency=2, rate_limit="3/s", limits_without_redis=mode)


async def answers_of(worker: Worker, mode: str, count: int, first: int) -> list[Blocked | None]:
    return list(await asyncio.gather(*(worker.limits.admit(both(mode), each) for each in jobs(count, first))))


@on_a_loop
async def test_locally_each_process_keeps_the_same_limits_by_itself(own_valkey: Valkey) -> None:
    url, clock = own_valkey.url, Clock()
    own_valkey.kill()
    async with workers(url, "a", "b", clock=clock) as fleet_of_two:
        for worker in fleet_of_two:
            whys = [blocked and blocked.why for blocked in await answers_of(worker, "local", 5, first=1)]
            assert sorted(whys, key=str) == [None, None, *["fleet limit reached"] * 3]
            for each in jobs(5):
                await worker.limits.release(both("local"), each.job_id)
            assert len(worker.rang()) == 2
            for blocked in await answers_of(worker, "local", 2, first=11):  # two were admitted, three may be
                if blocked is not None:
                    assert blocked == Blocked("rate", on_the_grid(1 / 3), "rate limit reached")


@on_a_loop
async def test_locally_a_rate_is_booked_as_with_redis(own_valkey: Valkey) -> None:
    url, clock, spec = own_valkey.url, Clock(), limited(rate_limit="50/s")
    own_valkey.kill()
    async with workers(url, "a", clock=clock) as (a,):
        start = clock.now
        answers = [await a.limits.admit(spec, each) for each in jobs(100)]
        assert [blocked and blocked.delay for blocked in answers] == [None] * 50 + [
            on_the_grid(0.02 * n) for n in range(1, 51)
        ]
        for n, each in enumerate(jobs(50, first=51), 1):
            clock.now = start + on_the_grid(0.02 * n)
            assert await a.admits(spec, each)


@on_a_loop
async def test_locally_a_place_goes_to_the_job_that_was_accepted_first(own_valkey: Valkey) -> None:
    url, spec = own_valkey.url, limited(fleet_concurrency=1)
    own_valkey.kill()
    async with workers(url, "a", "b") as (a, b):
        assert await a.admits(spec, job(1))
        assert await b.admits(spec, job(9))
        await a.asks(spec, job(3))
        await a.asks(spec, job(2))
        await a.limits.release(spec, job(1).job_id)
        assert a.rang() == [job(2)]


@on_a_loop
async def test_on_hold_nothing_runs_until_redis_is_back(own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "AWAY_SECONDS", 0.05)
    url, clock = own_valkey.url, Clock()
    own_valkey.kill()
    async with workers(url, "a", clock=clock) as (a,):
        assert set(await answers_of(a, "hold", 5, first=1)) == {Blocked("concurrency", 10.0, "limits unknown")}
        rate_only = limited("test.rate", rate_limit="1/s", limits_without_redis="hold")
        assert await a.asks(rate_only, job(6)) == Blocked("rate", 10.0, "limits unknown")
        own_valkey.start()
        await until(lambda: a.admits(both("hold"), job(1)))


@on_a_loop
async def test_what_is_allowed_without_redis_is_not_limited(own_valkey: Valkey) -> None:
    url, clock = own_valkey.url, Clock()
    own_valkey.kill()
    async with workers(url, "a", clock=clock) as (a,):
        assert await answers_of(a, "allow", 50, first=1) == [None] * 50


@pytest.mark.parametrize("mode", MODES)
@on_a_loop
async def test_the_limit_per_process_holds_without_redis_in_every_mode(own_valkey: Valkey, mode: str) -> None:
    url = own_valkey.url
    own_valkey.kill()
    spec = limited(max_concurrency=1, fleet_concurrency=5, limits_without_redis=mode)
    async with workers(url, "a") as (a,):
        answers = [await a.limits.admit(spec, each) for each in jobs(3)]
    assert sum(blocked is None for blocked in answers) == (0 if mode == "hold" else 1)


@pytest.mark.parametrize("mode", MODES)
@on_a_loop
async def test_a_redis_that_freezes_in_the_middle_costs_one_short_wait_and_one_line(
    own_valkey: Valkey, mode: str
) -> None:
    async with workers(own_valkey.url, "a") as (a,):
        assert await a.admits(both(mode), job(1))
        with frozen(own_valkey), capture_logs() as lines:
            began = time.monotonic()
            for first in range(10, 110, 10):
                await answers_of(a, mode, 10, first)
            assert time.monotonic() - began < 9 * TIMEOUT_SECONDS  # and not ten of them
        unshared = [line for line in lines if line["event"] == "limits.unshared"]
    assert [line["for_seconds"] for line in unshared] == [fleet.AWAY_SECONDS]


@pytest.mark.parametrize("mode", MODES)
@on_a_loop
async def test_a_redis_that_died_in_the_middle_is_used_again_once_it_is_back(
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(fleet, "AWAY_SECONDS", 0.05)
    spec = limited(fleet_concurrency=2, limits_without_redis=mode)
    async with workers(own_valkey.url, "a", "b") as (a, b):
        assert await a.admits(spec, job(1))
        own_valkey.kill()
        alone = await a.limits.admit(spec, job(2))
        assert (alone is None) is (mode != "hold")
        own_valkey.start()
        await until(lambda: is_shared(b))
        await until(lambda: is_shared(a))
        running = [job(1).job_id, job(2).job_id]
        await a.limits.renew(running)  # whoever was admitted meanwhile has a place from now on
        assert await b.admits(spec, job(3)) is (mode == "hold")
        for job_id in running:
            await a.limits.release(spec, job_id)
        assert await b.admits(spec, job(4))


async def is_shared(worker: Worker) -> bool:
    blocked = await worker.limits.admit(limited("test.probe", rate_limit=1e6, limits_without_redis="hold"), job(99))
    return blocked is None


@on_a_loop
async def test_a_place_that_could_not_be_given_back_is_free_with_its_lease(own_valkey: Valkey) -> None:
    clock, spec = Clock(), limited(fleet_concurrency=1)
    async with workers(own_valkey.url, "a", "b", clock=clock) as (a, b):
        assert await a.admits(spec, job(1))
        with frozen(own_valkey):
            await a.limits.release(spec, job(1).job_id)
        clock.now += 31
        assert await b.admits(spec, job(2))


@on_a_loop
async def test_where_the_broker_is_no_redis_each_process_is_alone_for_good() -> None:
    async with workers("amqp://nowhere//", "a", clock=Clock()) as (a,):
        with capture_logs() as lines:
            answers = await answers_of(a, "local", 5, first=1)
        assert sum(blocked is None for blocked in answers) == 2
        assert lines == []


def test_limits_that_no_redis_can_keep_are_doubtful_before_anything_runs() -> None:
    actions = {mode: both(mode) for mode in MODES} | {"here": limited(max_concurrency=1), "free": limited()}
    assert doubts("redis://there/0", actions) == []
    found = doubts("amqp://there//", actions)
    assert len(found) == 3
    assert "test.it has a limit for the whole fleet" in found[1]
    assert "nothing of it will ever run" in found[1]

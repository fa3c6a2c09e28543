"""The fleet's budget for retries over a real Valkey, by the second that each of several processes sees."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis

from tasks import Dependency
from tests.houses import ROOT
from tests.loops import on_a_loop
from worker.dev.servers import Valkey
from worker.fleet import Fleet
from worker.retry_budget import LONGEST_WAIT_SECONDS, SHORTEST_WAIT_SECONDS, WINDOW_SECONDS, Paid, RetryBudget, Window

NAME = "mail"
DEPENDENCY = Dependency(name=NAME, retry_share=0.1, retries_per_second=0.5)
LEAST = 5  # in a window
PROCESSES = 4


@asynccontextmanager
async def budget(url: str) -> AsyncIterator[RetryBudget]:
    fleet = Fleet(url, on_away=lambda _: None)
    yield RetryBudget(fleet)
    await asyncio.sleep(0)
    await fleet.close()


async def paid(retries: RetryBudget, times: int) -> int:
    """Ask so often; return how often it was let through."""
    answers = [await retries.pay(NAME, DEPENDENCY) for _ in range(times)]
    return sum(isinstance(answer, Paid) for answer in answers)


@on_a_loop
async def test_a_tenth_of_the_first_tries_and_some_in_any_case_may_be_tried_again(redis_url: str) -> None:
    async with budget(redis_url) as retries:
        for _ in range(200):
            retries.try_first(NAME, DEPENDENCY)
        assert await paid(retries, 100) == 20 + LEAST


@on_a_loop
async def test_the_budget_is_that_of_all_processes(redis_url: str) -> None:
    async with budget(redis_url) as one, budget(redis_url) as other:
        for _ in range(100):
            one.try_first(NAME, DEPENDENCY)
            other.try_first(NAME, DEPENDENCY)
        assert await paid(one, 1) == await paid(other, 1) == 1  # each tells what it counted
        assert await paid(one, 50) + await paid(other, 50) == 20 + LEAST - 2


@on_a_loop
async def test_while_nothing_fails_nobody_is_asked_anything(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        before = client.info("stats")["total_connections_received"]
        async with budget(redis_url) as retries:
            for _ in range(1_000):
                retries.try_first(NAME, DEPENDENCY)
        assert client.info("stats")["total_connections_received"] == before
        assert client.keys("surefoot:retries:*") == []


@on_a_loop
async def test_who_is_refused_comes_back_after_those_before_him(redis_url: str) -> None:
    async with budget(redis_url) as retries:
        assert await paid(retries, LEAST) == LEAST
        waits = [await retries.pay(NAME, DEPENDENCY) for _ in range(40)]
    assert all(isinstance(wait, float) for wait in waits)
    assert waits == sorted(waits)  # type: ignore[type-var]  # all of them are numbers
    assert waits[0] == WINDOW_SECONDS / LEAST
    assert waits[-1] == LONGEST_WAIT_SECONDS


@on_a_loop
async def test_what_a_retry_cost_that_succeeded_is_given_back(redis_url: str) -> None:
    async with budget(redis_url) as retries:
        for _ in range(10 * LEAST):
            answer = await retries.pay(NAME, DEPENDENCY)
            assert isinstance(answer, Paid)
            retries.give_back(answer)
            await asyncio.sleep(0)


@on_a_loop
async def test_a_dependency_without_a_budget_is_asked_nothing(redis_url: str) -> None:
    free = Dependency(name="free", retry_share=None)
    async with budget(redis_url) as retries:
        assert {await retries.pay("free", free) for _ in range(100)} == {None}


@on_a_loop
async def test_with_redis_away_a_process_keeps_to_its_own_count(own_valkey: Valkey) -> None:
    async with budget(own_valkey.url) as retries:
        for _ in range(200):
            retries.try_first(NAME, DEPENDENCY)
        own_valkey.kill()
        assert await paid(retries, 100) == 20 + LEAST
        refused = await retries.pay(NAME, DEPENDENCY)
        assert isinstance(refused, float)
        assert SHORTEST_WAIT_SECONDS <= refused <= LONGEST_WAIT_SECONDS


@on_a_loop
async def test_where_the_broker_is_no_redis_it_is_away_for_good() -> None:
    async with budget("amqp://nowhere") as retries:
        assert await paid(retries, 100) == LEAST


PROCESS = """
import asyncio, sys
from tests.integration.test_retry_budget import DEPENDENCY, NAME, budget, paid

async def main():
    async with budget(sys.argv[1]) as retries:
        for _ in range(250):
            retries.try_first(NAME, DEPENDENCY)
        print(await paid(retries, 1), flush=True)
        sys.stdin.readline()
        print(await paid(retries, 250))

asyncio.run(main())
"""


def test_a_thousand_jobs_that_fail_in_four_processes_make_at_most_a_fifth_more_attempts(redis_url: str) -> None:
    command = [sys.executable, "-c", PROCESS, redis_url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(PROCESSES)]  # type: ignore[call-overload]
    try:
        retried = [int(process.stdout.readline()) for process in processes]
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        retried += [int(process.stdout.readline()) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert 100 <= sum(retried) <= 100 + LEAST


# ---- by one process's own count --------------------------------------------------------------------------------


def test_first_tries_count_for_as_long_as_the_window() -> None:
    window = Window()
    for _ in range(100):
        window.try_first(1_000)
    assert [window.pay(1_000 + WINDOW_SECONDS - 1, 0.1, 0.1) for _ in range(11)] == [0.0] * 11
    assert window.pay(1_000 + WINDOW_SECONDS - 1, 0.1, 0.1) > 0
    assert window.pay(1_000 + 2 * WINDOW_SECONDS, 0.1, 0.1) == 0
    assert window.pay(1_000 + 2 * WINDOW_SECONDS, 0.1, 0.1) > 0


def test_what_was_told_is_not_told_again() -> None:
    window = Window()
    for second in (1_000, 1_003, 1_003):
        window.try_first(second)
    assert window.tell(1_005) == [5, 1, 2, 2]
    assert window.tell(1_005) == []
    window.try_first(1_006)
    assert window.tell(1_006 + WINDOW_SECONDS) == []


@pytest.mark.parametrize("share", [0.1, 0.001])
def test_at_least_one_retry_is_let_through(share: float) -> None:
    assert Window().pay(1_000, share, 0.001) == 0

"""One breaker among twenty real processes that race for a dependency which is well again."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import Any

import pytest
import redis

from tests import loops
from tests.houses import until
from tests.integration.breaker_process import all_race, forked
from tests.integration.breakers import moves_in, processes

PROCESSES = 20
SECONDS = 50.0


@pytest.fixture
def client(redis_url: str) -> Any:
    return redis.Redis.from_url(redis_url, decode_responses=True)


async def opened(url: str) -> None:
    async with processes(url, 1, recovery_seconds=0.5) as (one,):
        await one.fail(5)


@pytest.mark.timeout(150)
@loops.on_a_loop
async def test_of_twenty_processes_that_race_exactly_one_tries_and_all_go_on_once_it_has(
    redis_url: str, client: Any
) -> None:
    await opened(redis_url)
    with forked(redis_url, PROCESSES, "race", recovery_seconds=0.5):
        until(lambda: client.llen("ready") == PROCESSES, seconds=SECONDS)
        until(lambda: client.llen("probes"), seconds=SECONDS)
        (probe,) = client.lrange("probes", 0, -1)
        until(lambda: all_race(client, PROCESSES, but=probe), seconds=SECONDS)
        assert client.llen("probes") == 1
        client.set("well", 1)
        until(lambda: client.llen("closed") == PROCESSES, seconds=SECONDS)
    assert client.llen("probes") == 1
    with redis.Redis.from_url(redis_url) as raw:
        assert [move.becomes for move in moves_in(raw)] == ["open", "half-open", "closed"]


@pytest.mark.timeout(150)
@loops.on_a_loop
async def test_killing_whoever_tries_does_not_wedge_it(redis_url: str, client: Any) -> None:
    await opened(redis_url)
    with forked(redis_url, 3, "die", recovery_seconds=0.5):
        until(lambda: client.llen("probes"), seconds=SECONDS)
        for number in (1, 2):
            until(partial(_probed, client, number), seconds=SECONDS)
            os.kill(int(client.lrange("probes", -1, -1)[0]), signal.SIGKILL)
        until(partial(_probed, client, 3), seconds=SECONDS)
        client.set("well", 1)
        until(lambda: client.llen("closed") == 1, seconds=SECONDS)


def _probed(client: Any, times: int) -> bool:
    return bool(client.llen("probes") == times)

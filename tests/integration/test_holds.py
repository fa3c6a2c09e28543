"""A dependency that asked for patience, as two workers see it."""

from __future__ import annotations

import time

import pytest

from tests.loops import on_a_loop, until
from worker import breaker
from worker.breaker import Holds
from worker.dev.servers import Valkey


@on_a_loop
async def test_what_one_worker_holds_all_others_hold_for_as_long(redis_url: str) -> None:
    hearing, other = Holds(redis_url), Holds(redis_url)
    await hearing.hold("mail", 30, why="429")
    assert 29 < await hearing.seconds_held("mail") <= 30
    assert 29 < await other.seconds_held("mail") <= 30
    assert await other.seconds_held("crm") == 0
    await hearing.close()
    await other.close()


@on_a_loop
async def test_a_hold_is_only_ever_prolonged(redis_url: str) -> None:
    one, other = Holds(redis_url), Holds(redis_url)
    await one.hold("mail", 30, why="429")
    await other.hold("mail", 1, why="429")
    await one.hold("mail", 2, why="429")
    assert await one.seconds_held("mail") > 29
    late = Holds(redis_url)
    assert await late.seconds_held("mail") > 29
    for holds in (one, other, late):
        await holds.close()


@on_a_loop
async def test_a_hold_that_another_set_shows_within_half_a_second(redis_url: str) -> None:
    one, other = Holds(redis_url), Holds(redis_url)
    assert await other.seconds_held("mail") == 0
    await one.hold("mail", 30, why="429")
    began = time.monotonic()
    await until(lambda: other.seconds_held("mail"))
    assert time.monotonic() - began < 2 * breaker.STALE_SECONDS
    await one.close()
    await other.close()


@on_a_loop
async def test_without_redis_a_hold_is_this_process_s_own(own_valkey: Valkey) -> None:
    url = own_valkey.url
    own_valkey.kill()
    one, other = Holds(url), Holds(url)
    await one.hold("mail", 30, why="429")
    assert await one.seconds_held("mail") > 29
    assert await other.seconds_held("mail") == 0
    await one.close()
    await other.close()


@pytest.mark.parametrize("seconds", [0, 0.0001])
@on_a_loop
async def test_a_hold_of_no_time_is_none(redis_url: str, seconds: float) -> None:
    holds = Holds(redis_url)
    await holds.hold("mail", seconds, why="429")
    await until(lambda: _is_free(holds))
    await holds.close()


async def _is_free(holds: Holds) -> bool:
    return await holds.seconds_held("mail") == 0

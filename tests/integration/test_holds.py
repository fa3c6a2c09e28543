"""A dependency that asked for patience, as two workers see it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis

from producer.breaker_words import held_key_of
from tests.loops import on_a_loop, until
from worker import holds as worker_holds
from worker.dev.servers import Valkey
from worker.fleet import Fleet
from worker.holds import Holds


@asynccontextmanager
async def holds_of(url: str) -> AsyncIterator[Holds]:
    """One worker's holds."""
    fleet = Fleet(url, on_away=lambda _: None)
    yield Holds(fleet)
    await fleet.close()


@on_a_loop
async def test_what_one_worker_holds_all_others_hold_for_as_long(redis_url: str) -> None:
    async with holds_of(redis_url) as hearing, holds_of(redis_url) as other:
        await hearing.hold("mail", 30, why="429")
        assert 29 < await hearing.seconds_held("mail") <= 30
        assert 29 < await other.seconds_held("mail") <= 30
        assert await other.seconds_held("crm") == 0


@on_a_loop
async def test_a_hold_is_only_ever_prolonged(redis_url: str) -> None:
    async with holds_of(redis_url) as one, holds_of(redis_url) as other, holds_of(redis_url) as late:
        await one.hold("mail", 30, why="429")
        await other.hold("mail", 1, why="429")
        await one.hold("mail", 2, why="429")
        assert await one.seconds_held("mail") > 29
        assert await late.seconds_held("mail") > 29


@on_a_loop
async def test_a_hold_that_another_set_shows_within_half_a_second(redis_url: str) -> None:
    async with holds_of(redis_url) as one, holds_of(redis_url) as other:
        assert await other.seconds_held("mail") == 0
        await one.hold("mail", 30, why="429")
        began = time.monotonic()
        await until(lambda: other.seconds_held("mail"))
        assert time.monotonic() - began < 2 * worker_holds.STALE_SECONDS


@on_a_loop
async def test_a_hold_that_an_operator_ends_is_over_in_every_process_that_knew_of_it(redis_url: str) -> None:
    async with holds_of(redis_url) as one, holds_of(redis_url) as other:
        await one.hold("mail", 30, why="429")
        assert await other.seconds_held("mail") > 29
        with redis.Redis.from_url(redis_url) as client:
            client.delete(held_key_of("mail"))
        await until(lambda: _is_free(one))
        await until(lambda: _is_free(other))


@on_a_loop
async def test_a_hold_that_was_heard_of_before_redis_went_away_stands(own_valkey: Valkey) -> None:
    async with holds_of(own_valkey.url) as one, holds_of(own_valkey.url) as other:
        await one.hold("mail", 30, why="429")
        assert await other.seconds_held("mail") > 29
        own_valkey.kill()
        for each in (one, other):
            each._seen["mail"].fresh_until = 0.0  # noqa: SLF001  as half a second later
            assert await each.seconds_held("mail") > 29


@on_a_loop
async def test_a_hold_of_this_process_alone_does_not_end_because_redis_is_back_and_knows_nothing_of_it(
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.fleet.AWAY_SECONDS", 0.01)
    url = own_valkey.url
    own_valkey.kill()
    async with holds_of(url) as one:
        await one.hold("mail", 30, why="429")
        own_valkey.start()
        await until(lambda: _is_asked(one))
        assert await one.seconds_held("mail") > 29
        one._seen["mail"].held_until = one._seen["mail"].fresh_until = 0.0  # noqa: SLF001  as half a minute later
        async with holds_of(url) as other:
            await other.hold("mail", 30, why="429")
        assert await one.seconds_held("mail") > 29  # which is Redis's word again


async def _is_asked(holds: Holds) -> bool:
    """Whether Redis answers, of something else."""
    await holds.seconds_held("crm")
    return "crm" in holds._seen  # noqa: SLF001  what is remembered was answered


@on_a_loop
async def test_without_redis_a_hold_is_this_process_s_own(own_valkey: Valkey) -> None:
    url = own_valkey.url
    own_valkey.kill()
    async with holds_of(url) as one, holds_of(url) as other:
        await one.hold("mail", 30, why="429")
        assert await one.seconds_held("mail") > 29
        assert await other.seconds_held("mail") == 0


@pytest.mark.parametrize("seconds", [0, 0.0001])
@on_a_loop
async def test_a_hold_of_no_time_is_none(redis_url: str, seconds: float) -> None:
    async with holds_of(redis_url) as holds:
        await holds.hold("mail", seconds, why="429")
        await until(lambda: _is_free(holds))


async def _is_free(holds: Holds) -> bool:
    return await holds.seconds_held("mail") == 0

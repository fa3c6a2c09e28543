"""A dependency that asked for patience, as two workers see it."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis

from producer.breaker_words import held_key_of, line_key_of
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
        assert 20 < await hearing.seconds_held("mail") <= 30
        assert 20 < await other.seconds_held("mail") <= 30
        assert await other.seconds_held("crm") == 0


@on_a_loop
async def test_a_hold_is_only_ever_prolonged(redis_url: str) -> None:
    async with holds_of(redis_url) as one, holds_of(redis_url) as other, holds_of(redis_url) as late:
        await one.hold("mail", 30, why="429")
        await other.hold("mail", 1, why="429")
        await one.hold("mail", 2, why="429")
        assert await one.seconds_held("mail") > 20
        assert await late.seconds_held("mail") > 20


@on_a_loop
async def test_a_hold_that_another_set_shows_within_half_a_second(redis_url: str) -> None:
    async with holds_of(redis_url) as one, holds_of(redis_url) as other:
        assert await other.seconds_held("mail") == 0
        await one.hold("mail", 30, why="429")
        began = time.monotonic()
        await until(lambda: other.seconds_held("mail"))
        assert time.monotonic() - began < 10 * worker_holds.STALE_SECONDS


@on_a_loop
async def test_a_hold_that_an_operator_ends_is_over_in_every_process_that_knew_of_it(redis_url: str) -> None:
    async with holds_of(redis_url) as one, holds_of(redis_url) as other:
        await one.hold("mail", 30, why="429")
        assert await other.seconds_held("mail") > 20
        with redis.Redis.from_url(redis_url) as client:
            client.delete(held_key_of("mail"))
        await until(lambda: _is_free(one))
        await until(lambda: _is_free(other))


@on_a_loop
async def test_a_hold_that_was_heard_of_before_redis_went_away_stands(own_valkey: Valkey) -> None:
    async with holds_of(own_valkey.url) as one, holds_of(own_valkey.url) as other:
        await one.hold("mail", 30, why="429")
        assert await other.seconds_held("mail") > 20
        own_valkey.kill()
        for each in (one, other):
            each._seen["mail"].fresh_until = 0.0  # noqa: SLF001  as half a second later
            assert await each.seconds_held("mail") > 20


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
        assert await one.seconds_held("mail") > 20
        assert await waits(one) > 20
        one._seen["mail"].held_until = one._seen["mail"].fresh_until = 0.0  # noqa: SLF001  as half a minute later
        async with holds_of(url) as other:
            await other.hold("mail", 30, why="429")
        assert await one.seconds_held("mail") > 20  # which is Redis's word again


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
        assert await one.seconds_held("mail") > 20
        assert await other.seconds_held("mail") == 0


async def waits(holds: Holds, *, per_second: float = 10, at_most: float = math.inf) -> float:
    """After how long a job comes back that would call it now."""
    return await holds.wait_seconds("mail", per_second=per_second, at_most=at_most, needs=60, jitter=1)


def last(url: str) -> int:
    """When the last of those comes back that wait, in milliseconds."""
    with redis.Redis.from_url(url) as client:
        return int(float(client.get(line_key_of("mail")) or 0))


@on_a_loop
async def test_those_who_wait_for_the_end_of_a_hold_come_back_one_by_one_whichever_worker_has_them(
    redis_url: str,
) -> None:
    async with holds_of(redis_url) as one, holds_of(redis_url) as other:
        await one.hold("mail", 60, why="429")
        places = []
        for each in (one, other) * 50:
            wait = await waits(each)
            places.append(last(redis_url))
            assert wait == pytest.approx(60 + len(places) / 10, abs=5)
        assert [later - sooner for sooner, later in itertools.pairwise(places)] == pytest.approx([100] * 99, abs=20)
        assert await other.wait_seconds("crm", per_second=10, at_most=math.inf, needs=60, jitter=1) == 0


@on_a_loop
async def test_who_is_asked_for_patience_again_does_not_have_those_who_wait_come_all_at_once(redis_url: str) -> None:
    async with holds_of(redis_url) as one, holds_of(redis_url) as other:
        await one.hold("mail", 60, why="429")
        for _ in range(100):
            await waits(other)
        before = last(redis_url)
        await one.hold("mail", 62, why="429")  # by which twenty were to have come
        await waits(other)
        assert last(redis_url) - before == 100  # behind them


@pytest.mark.parametrize(
    ("held", "per_second", "longest"),
    [
        pytest.param(5, 1, 60, id="a minute at least"),
        pytest.param(30, 1, 300, id="ten times the hold"),
        pytest.param(100, 1, 600, id="ten minutes at most"),
        pytest.param(30, 0.01, 1_000, id="ten jobs at least"),
    ],
)
@on_a_loop
async def test_more_than_the_line_is_long_for_share_its_times(
    redis_url: str, held: float, per_second: float, longest: float
) -> None:
    async with holds_of(redis_url) as one:
        await one.hold("mail", held, why="429")
        with redis.Redis.from_url(redis_url) as client:
            seconds, _ = client.time()
            nearly = int(seconds) + held + longest - 2.5 / per_second
            client.set(line_key_of("mail"), int(nearly * 1000))
        found = [await waits(one, per_second=per_second) for _ in range(4)]
        assert found[0] == pytest.approx(held + longest - 1.5 / per_second, abs=3)
        assert min(found) == pytest.approx(held, abs=3)
        assert found.index(min(found)) in (2, 3)


@on_a_loop
async def test_who_cannot_wait_for_so_long_comes_in_time_once_it_is_over_and_takes_nobody_s_place(
    redis_url: str,
) -> None:
    async with holds_of(redis_url) as one:
        await one.hold("mail", 60, why="429")
        for _ in range(400):
            await waits(one)
        before = last(redis_url)
        for jitter, expected in ((0, 60), (0.5, 75), (1, 90)):
            wait = await one.wait_seconds("mail", per_second=10, at_most=100, needs=10, jitter=jitter)
            assert wait == pytest.approx(expected, abs=2)
        assert last(redis_url) == before
        assert await waits(one, at_most=170) > 95


@pytest.mark.parametrize(
    ("more", "spread"),
    [
        pytest.param(61, 15, id="hardly more than its action's time"),
        pytest.param(40, 15, id="less than its action's time"),
        pytest.param(4, 2, id="hardly any"),
        pytest.param(-30, 15, id="none"),
    ],
)
@pytest.mark.parametrize("shared", [True, False], ids=["in Redis", "in a process"])
@on_a_loop
async def test_those_who_have_little_time_once_it_is_over_do_not_come_all_in_one_moment_and_not_too_late(
    redis_url: str,
    more: float,
    spread: float,
    shared: bool,  # noqa: FBT001  both ways
) -> None:
    async with holds_of(redis_url if shared else "amqp://nowhere") as one:
        await one.hold("mail", 60, why="429")
        for _ in range(700):
            await waits(one)
        for jitter in (0, 0.5, 1):
            left = await one.seconds_held("mail")
            wait = await one.wait_seconds("mail", per_second=10, at_most=left + more, needs=60, jitter=jitter)
            assert wait - left == pytest.approx(spread * jitter, abs=1)


@on_a_loop
async def test_a_redis_that_is_full_still_says_who_is_held(own_valkey: Valkey) -> None:
    async with holds_of(own_valkey.url) as one, holds_of(own_valkey.url) as other:
        await one.hold("mail", 60, why="429")
        with redis.Redis.from_url(own_valkey.url) as client:
            client.config_set("maxmemory", 1)
            assert await waits(other) == pytest.approx(60, abs=3)  # 75 where it is away


@on_a_loop
async def test_who_comes_as_a_hold_ends_waits_for_nobody(redis_url: str) -> None:
    async with holds_of(redis_url) as one, holds_of(redis_url) as other:
        await one.hold("mail", 30, why="429")
        assert await waits(other) > 20
        with redis.Redis.from_url(redis_url) as client:
            client.delete(held_key_of("mail"))
        assert await waits(other) == 0  # though it knew of it just now
        assert await other.seconds_held("mail") == 0


@on_a_loop
async def test_without_redis_those_who_wait_come_back_within_a_quarter_of_the_time(own_valkey: Valkey) -> None:
    async with holds_of(own_valkey.url) as one, holds_of(own_valkey.url) as other:
        await one.hold("mail", 60, why="429")
        assert await waits(other) > 59
        own_valkey.kill()
        assert await waits(other) == pytest.approx(75, abs=5)
        await one.hold("mail", 100, why="429")
        assert await waits(one) == pytest.approx(125, abs=5)


@pytest.mark.parametrize("seconds", [0, 0.0001])
@on_a_loop
async def test_a_hold_of_no_time_is_none(redis_url: str, seconds: float) -> None:
    async with holds_of(redis_url) as holds:
        await holds.hold("mail", seconds, why="429")
        await until(lambda: _is_free(holds))


async def _is_free(holds: Holds) -> bool:
    return await holds.seconds_held("mail") == 0

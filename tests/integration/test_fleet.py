"""Asking Redis: together in one round trip, never for long, and again once it is back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from tests import houses
from tests.loops import on_a_loop, until
from worker import fleet as fleet_module
from worker.dev.servers import Valkey
from worker.fleet import TIMEOUT_SECONDS, Away, Fleet, Script

ADD = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
# What a busy machine may add to a wait that is bounded.
SLACK_SECONDS = 2.0


@asynccontextmanager
async def fleet_at(url: str, told: list[str] | None = None) -> AsyncIterator[Fleet]:
    nobody: list[str] = []
    fleet = Fleet(url, on_away=(nobody if told is None else told).append)
    try:
        yield fleet
    finally:
        await fleet.close()


def stats(url: str) -> dict[str, Any]:
    with redis.Redis.from_url(url) as client:
        return dict(client.info("all"))


@on_a_loop
async def test_a_hundred_who_ask_at_once_share_one_connection_and_get_their_own_answers(redis_url: str) -> None:
    async with fleet_at(redis_url) as fleet:
        assert await asyncio.gather(*(fleet.run(ADD, ["sum"], [1]) for _ in range(100))) == list(range(1, 101))
        before = stats(redis_url)
        assert await asyncio.gather(*(fleet.command("ECHO", n) for n in range(100))) == [b"%d" % n for n in range(100)]
    after = stats(redis_url)
    assert after["total_connections_received"] == before["total_connections_received"] + 1  # this look itself
    assert after["total_reads_processed"] - before["total_reads_processed"] < 10


@on_a_loop
async def test_a_script_is_sent_in_full_once_and_again_where_redis_has_forgotten_it(own_valkey: Valkey) -> None:
    async with fleet_at(own_valkey.url) as fleet:
        assert [await fleet.run(ADD, ["sum"], [1]) for _ in range(3)] == [1, 2, 3]
        with redis.Redis.from_url(own_valkey.url) as client:
            client.script_flush()
        assert await asyncio.gather(*(fleet.run(ADD, ["sum"], [1]) for _ in range(3))) == [4, 5, 6]
    assert stats(own_valkey.url)["cmdstat_eval"]["calls"] == 4


@on_a_loop
async def test_a_redis_that_was_restarted_between_two_questions_is_not_away(own_valkey: Valkey) -> None:
    told: list[str] = []
    async with fleet_at(own_valkey.url, told) as fleet:
        await fleet.run(ADD, ["sum"], [1])
        own_valkey.kill()
        own_valkey.start()
        assert await fleet.run(ADD, ["sum"], [1]) == 2
    assert told == []


@on_a_loop
async def test_while_redis_is_away_one_wait_is_bounded_and_the_next_are_none(own_valkey: Valkey) -> None:
    told: list[str] = []
    async with fleet_at(own_valkey.url, told) as fleet:
        await fleet.command("PING")
        os.kill(own_valkey.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            answers = await asyncio.gather(*(fleet.command("PING") for _ in range(100)), return_exceptions=True)
            assert {type(answer) for answer in answers} == {Away}
            assert time.monotonic() - began < TIMEOUT_SECONDS + SLACK_SECONDS
            began = time.monotonic()
            for _ in range(100):
                with pytest.raises(Away):
                    await fleet.command("PING")
            assert time.monotonic() - began < 10 * TIMEOUT_SECONDS  # and not a hundred of them
        finally:
            os.kill(own_valkey.pid, signal.SIGCONT)
    assert told == [f"no answer within {TIMEOUT_SECONDS:g} s"]


@on_a_loop
async def test_an_outage_is_told_once_and_ends_by_itself(own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "AWAY_SECONDS", 0.05)
    told: list[str] = []

    async def answers() -> bool:
        try:
            return bool(await fleet.command("PING"))
        except Away:
            return False

    async with fleet_at(own_valkey.url, told) as fleet:
        for outage in (1, 2):
            own_valkey.kill()
            tries = 0
            while tries < 100 or len(told) < outage:
                assert not await answers()
                await asyncio.sleep(0.001)
                tries += 1
            assert len(told) == outage
            own_valkey.start()
            await until(answers)
    assert len(told) == 2


@on_a_loop
async def test_a_redis_that_refuses_a_write_is_as_good_as_away(own_valkey: Valkey) -> None:
    told: list[str] = []
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("maxmemory", 1)
    async with fleet_at(own_valkey.url, told) as fleet:
        with pytest.raises(Away):
            await fleet.run(ADD, ["sum"], [1])
    assert len(told) == 1
    assert "maxmemory" in told[0]


@on_a_loop
async def test_a_loop_that_stood_still_does_not_take_redis_for_away(redis_url: str) -> None:
    async with fleet_at(redis_url) as fleet:
        await fleet.command("PING")
        asked = asyncio.ensure_future(fleet.command("BLPOP", "nothing", 0.1))  # an answer that takes a while
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        blocked_until = time.monotonic() + 2 * TIMEOUT_SECONDS
        houses.until(lambda: time.monotonic() > blocked_until)  # an action that keeps the loop to itself
        assert await asked is None


@on_a_loop
async def test_one_who_is_cut_off_takes_nobody_else_s_answer_along(redis_url: str) -> None:
    async with fleet_at(redis_url) as fleet:
        asked = [asyncio.ensure_future(fleet.command("ECHO", n)) for n in range(10)]
        await asyncio.sleep(0)
        asked[3].cancel()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert answers[:3] + answers[4:] == [b"%d" % n for n in range(10) if n != 3]
        assert await fleet.command("ECHO", "next") == b"next"


@on_a_loop
async def test_whoever_still_waits_when_the_line_is_hung_up_is_told_so(own_valkey: Valkey) -> None:
    async with fleet_at(own_valkey.url) as fleet:
        await fleet.command("PING")
        os.kill(own_valkey.pid, signal.SIGSTOP)
        try:
            asked = asyncio.ensure_future(fleet.command("PING"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await fleet.close()
            with pytest.raises(Away):
                await asked
        finally:
            os.kill(own_valkey.pid, signal.SIGCONT)


@pytest.mark.parametrize("url", ["amqp://user:password@nowhere//", "amqps://user:password@nowhere//"])
@on_a_loop
async def test_a_broker_that_is_no_redis_is_never_asked(url: str) -> None:
    told: list[str] = []
    async with fleet_at(url, told) as fleet:
        with pytest.raises(Away):
            await fleet.command("PING")
    assert told == []

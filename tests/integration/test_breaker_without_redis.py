"""What becomes of breakers while Redis is away, as each dependency declares it, and when it is back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress

import pytest
import redis

from tests.integration.breakers import Process, processes
from tests.loops import on_a_loop, until
from worker import fleet
from worker.breaker_answers import BreakerOpen
from worker.breaker_calls import Ticket
from worker.dev.servers import Valkey
from worker.fleet import TIMEOUT_SECONDS

MODES = ("local", "reject", "allow")


async def state_of(process: Process) -> str:
    try:
        process.calls.record(await process.calls.admit(lease_seconds=1), failed=None)
    except BreakerOpen as error:
        return error.state
    return "lets through"


@on_a_loop
async def test_locally_each_process_breaks_by_itself_by_the_same_rules(own_valkey: Valkey) -> None:
    url = own_valkey.url
    own_valkey.kill()
    async with processes(url, 2, listens=False) as (one, other):
        await one.fail(5)
        assert [await state_of(one), await state_of(other)] == ["open", "lets through"]
        tries = await until(lambda: _through(one))
        assert tries is not None
        assert tries.token
        assert await state_of(one) == "half-open"
        one.calls.record(tries, failed=False)
        assert await state_of(one) == "lets through"
        assert one.listener.moves == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]
        assert len(one.away) == 1  # one line an outage


async def _through(process: Process) -> Ticket | None:
    try:
        return await process.calls.admit(lease_seconds=1)
    except BreakerOpen:
        return None


@on_a_loop
async def test_a_redis_that_answers_and_takes_no_writes_is_away_and_each_process_breaks_by_itself(
    own_valkey: Valkey,
) -> None:
    async with processes(own_valkey.url, 1) as (one,):
        await one.succeed()
        await one.told()
        with redis.Redis.from_url(own_valkey.url) as client:
            client.config_set("min-replicas-to-write", 1)  # there is none, so every write is refused
        let_through = 0
        for _ in range(60):
            with suppress(BreakerOpen):
                await one.fail()
                let_through += 1
        assert let_through == 5
        assert len(one.away) == 1


@on_a_loop
async def test_on_reject_nothing_runs_until_redis_is_back(own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "AWAY_SECONDS", 0.05)
    url = own_valkey.url
    own_valkey.kill()
    async with processes(url, 1, listens=False, without_redis="reject") as (one,):
        assert await state_of(one) == "unknown"
        own_valkey.start()
        await until(lambda: _is(one, "lets through"))


@on_a_loop
async def test_what_is_allowed_without_redis_never_breaks(own_valkey: Valkey) -> None:
    url = own_valkey.url
    own_valkey.kill()
    async with processes(url, 1, listens=False, without_redis="allow") as (one,):
        await one.fail(50)
        assert await state_of(one) == "lets through"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGKILL], ids=["freezes", "dies"])
@on_a_loop
async def test_no_call_waits_long_for_a_redis_that_freezes_or_dies_in_the_middle(
    own_valkey: Valkey, mode: str, fault: signal.Signals
) -> None:
    async with processes(own_valkey.url, 1, without_redis=mode, recovery_seconds=60) as (one,):
        await one.succeed()
        one.calls.stirred()  # so that each of them wants to ask
        asking = [asyncio.create_task(state_of(one)) for _ in range(50)]
        await asyncio.sleep(0)  # they are about to
        os.kill(own_valkey.pid, fault)
        try:
            began = time.monotonic()
            await asyncio.gather(*asking)
            for _ in range(20):
                one.calls.stirred()
                await asyncio.gather(*(state_of(one) for _ in range(50)))
            assert time.monotonic() - began < 18 * TIMEOUT_SECONDS  # and not twenty times that
        finally:
            if fault is signal.SIGSTOP:
                os.kill(own_valkey.pid, signal.SIGCONT)
        assert len(one.away) == 1


@on_a_loop
async def test_what_failed_while_redis_died_is_counted_here(own_valkey: Valkey) -> None:
    async with processes(own_valkey.url, 1, recovery_seconds=60) as (one,):
        await one.succeed()
        own_valkey.kill()
        await one.fail(5)
        one.calls.stirred()
        assert await state_of(one) == "open"


@on_a_loop
async def test_once_redis_is_back_the_fleet_s_word_counts_again(
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "AWAY_SECONDS", 0.05)
    url = own_valkey.url
    own_valkey.kill()
    async with processes(url, 2, listens=False, recovery_seconds=60) as (one, other):
        await one.fail(5)
        assert await state_of(one) == "open"
        own_valkey.start()
        await until(lambda: _is(one, "lets through"))
        await until(lambda: _is(other, "lets through"))
        await other.fail(5)
        await until(lambda: _is(one, "open"))


async def _is(process: Process, state: str) -> bool:
    return await state_of(process) == state


@on_a_loop
async def test_where_the_broker_is_no_redis_each_process_breaks_by_itself_for_good() -> None:
    async with processes("amqp://nowhere//", 1, listens=False, recovery_seconds=60) as (one,):
        await one.fail(5)
        assert await state_of(one) == "open"
        assert one.away == []

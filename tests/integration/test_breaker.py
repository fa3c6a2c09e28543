"""One breaker of several worker processes, on real Redis and its clock; pybreaker's face."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from contextlib import suppress
from typing import Any

import pybreaker
import pytest
import redis
from structlog.testing import capture_logs

from producer.breaker_words import Transition, key_of
from tests.integration.breakers import NAME, Process, moves_in, processes
from tests.loops import on_a_loop, until
from worker.breaker_answers import BreakerOpen
from worker.breaker_calls import HEARD_MS, Ticket
from worker.dev.servers import Valkey


async def gets_through(process: Process, *, lease_seconds: float = 5) -> Ticket | None:
    try:
        return await process.calls.admit(lease_seconds=lease_seconds)
    except BreakerOpen:
        return None


async def soon_gets_through(process: Process) -> Ticket:
    ticket = await until(lambda: gets_through(process))
    assert ticket is not None
    return ticket


@on_a_loop
async def test_what_opens_in_one_process_is_open_in_all_of_which_each_is_told(redis_url: str) -> None:
    async with processes(redis_url, 3, recovery_seconds=60) as fleet:
        for each in fleet:
            await each.succeed()
        await fleet[0].fail(5)

        async def refused_everywhere() -> bool:
            return [await gets_through(each) for each in fleet] == [None, None, None]

        await until(refused_everywhere)
        assert [each.listener.moves for each in fleet] == [[("closed", "open")], [], []]  # told of in one, once


@on_a_loop
async def test_failures_in_a_row_are_counted_over_all_processes(redis_url: str) -> None:
    async with processes(redis_url, 5, recovery_seconds=60) as fleet:
        for each in fleet:
            await each.fail()
        assert [move.becomes for move in moves_in(redis.Redis.from_url(redis_url))] == ["open"]


@on_a_loop
async def test_four_failures_of_five_open_it_although_each_row_of_them_ends_with_a_success(redis_url: str) -> None:
    async with processes(redis_url, 1, recovery_seconds=60) as (one,):
        with suppress(BreakerOpen):
            while True:
                await one.succeed()
                await one.fail(4)
        with redis.Redis.from_url(redis_url) as client:
            (opened,) = moves_in(client)
        assert opened.reason == "16 of 20 calls failed"


@on_a_loop
async def test_where_nobody_is_told_of_moves_they_are_seen_all_the_same(redis_url: str) -> None:
    async with processes(redis_url, 2, listens=False, recovery_seconds=60) as (one, other):
        await other.succeed()
        await one.fail(5)

        async def refused() -> bool:
            return await gets_through(other) is None

        await until(refused)


@on_a_loop
async def test_while_it_is_closed_ten_thousand_calls_ask_redis_once(redis_url: str) -> None:
    async with processes(redis_url, 1) as (one,):
        for _ in range(10_000):
            await one.succeed()
        assert one.calls.asked == 1


@on_a_loop
async def test_of_calls_through_a_closed_breaker_redis_hears_less_than_one_command_in_a_hundred(
    own_valkey: Valkey,
) -> None:
    async with processes(own_valkey.url, 2) as fleet:
        with redis.Redis.from_url(own_valkey.url) as client:
            before = commands(client)
            for _ in range(2_000):
                for each in fleet:
                    await each.succeed()
            assert commands(client) - before <= 0.01 * 4_000


def commands(client: redis.Redis) -> int:
    """How many commands Redis was sent, but for this question."""
    told: Any = client.info("commandstats")
    return sum(each["calls"] for name, each in told.items() if name != "cmdstat_info")


@on_a_loop
async def test_while_some_calls_fail_successes_are_told_and_few_calls_ask(redis_url: str) -> None:
    async with processes(redis_url, 2, failure_rate=0.5, fail_max=None) as (one, other):
        for _ in range(20):
            for _ in range(100):
                await one.succeed()
                await other.succeed()
            await other.fail()
        assert one.calls.asked + other.calls.asked < 0.02 * 4_000
        with redis.Redis.from_url(redis_url) as client:

            async def all_told() -> bool:
                told: Any = client.hgetall(f"surefoot:breaker:{NAME}")
                return sum(int(n) for name, n in told.items() if name.startswith(b"ok")) == 4_000

            await until(all_told)


@on_a_loop
async def test_ten_calls_through_one_breaker_run_at_the_same_time(redis_url: str) -> None:
    async with processes(redis_url, 1) as (one,):
        running = asyncio.Barrier(10)  # none gets past it before all ten are in
        async with asyncio.timeout(5):
            await asyncio.gather(*(one.breaker.call_async(running.wait) for _ in range(10)))


@on_a_loop
async def test_it_opens_lets_one_try_and_closes_in_every_process(redis_url: str) -> None:
    async with processes(redis_url, 4) as fleet:
        await fleet[0].fail(5)
        tries = await soon_gets_through(fleet[1])
        assert tries.token
        assert [await gets_through(each) for each in fleet] == [None] * 4
        fleet[1].calls.record(tries, failed=False)
        for each in fleet:
            assert not (await soon_gets_through(each)).token
        told = [move for each in fleet for move in each.listener.moves]
        assert sorted(told) == [("closed", "open"), ("half-open", "closed"), ("open", "half-open")]


@on_a_loop
async def test_a_probe_whose_attempt_is_cut_off_while_it_asks_leaves_the_next_one_free_to_try(redis_url: str) -> None:
    async with processes(redis_url, 2) as (one, other):
        await one.fail(5)
        await until(lambda: _is_due(redis_url))
        asking = asyncio.create_task(one.calls.admit(lease_seconds=60))
        await asyncio.sleep(0)  # it has asked, and has no answer
        asking.cancel()
        assert (await soon_gets_through(other)).token


@on_a_loop
async def test_a_turn_to_try_of_which_whoever_has_it_heard_too_late_is_another_s_soon_and_not_after_its_lease(
    own_valkey: Valkey,
) -> None:
    async with processes(own_valkey.url, 2, recovery_seconds=0.05) as (one, other):
        await one.fail(5)
        await until(lambda: _is_due(own_valkey.url))
        os.kill(own_valkey.pid, signal.SIGSTOP)
        try:
            gave_up = await one.calls.admit(lease_seconds=600)
        finally:
            os.kill(own_valkey.pid, signal.SIGCONT)
        assert gave_up.local  # it went by what it knew by itself
        with redis.Redis.from_url(own_valkey.url) as client:

            async def has_the_turn() -> bool:
                return bool(client.hget(f"surefoot:breaker:{NAME}", "token"))

            await until(has_the_turn)
        ticket = await soon_gets_through(other)
        assert ticket.token
        other.calls.record(ticket, failed=False)
        await other.told()
        assert [move.becomes for move in moves_at(own_valkey.url)] == ["open", "half-open", "closed"]


@on_a_loop
async def test_whoever_tries_has_its_turn_for_as_long_as_its_call_is_under_way(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.breaker_calls.PROLONG_SECONDS", 0.01)
    async with processes(redis_url, 2, recovery_seconds=0.05) as (one, other):
        with redis.Redis.from_url(redis_url) as client:

            async def lease() -> float:
                return float(client.hget(key_of(NAME), "lease") or 0)

            async def is_prolonged() -> bool:
                return await lease() > before

            await one.fail(5)
            ticket = await until(lambda: gets_through(one, lease_seconds=600))
            assert ticket is not None
            for _ in range(3):
                before = await lease()
                await until(is_prolonged)
            lasts_until, (seconds, us) = await lease(), client.time()
            assert lasts_until - (seconds * 1000 + us / 1000) <= 9_000  # as the docs have it, should it die
            assert await gets_through(other) is None
            one.calls.record(ticket, failed=True)
            await one.told()
            before = await lease()
            assert (client.hget(key_of(NAME), "state"), before) == (b"open", 0)
            second = await soon_gets_through(other)
            await until(is_prolonged)
            other.calls.record(second, failed=None)
            await other.told()
            assert client.hget(key_of(NAME), "token") == b""


@on_a_loop
async def test_a_redis_that_pauses_ends_nobody_s_turn(own_valkey: Valkey) -> None:
    async with processes(own_valkey.url, 2, recovery_seconds=0.05) as (one, other):
        with redis.Redis.from_url(own_valkey.url) as client:

            async def is_kept() -> bool:
                (seconds, us), lease = client.time(), client.hget(key_of(NAME), "lease")
                return bool(float(lease or 0) - (seconds * 1000 + us / 1000) > HEARD_MS)

            async def is_away() -> bool:
                return bool(one.away)

            async def answers_again() -> bool:
                assert await gets_through(other) is None
                return not one.fleet._told  # noqa: SLF001  what it says once an outage

            await one.fail(5)
            ticket = await soon_gets_through(one)
            await until(is_kept)
            os.kill(own_valkey.pid, signal.SIGSTOP)
            try:
                await until(is_away)
            finally:
                os.kill(own_valkey.pid, signal.SIGCONT)
            await until(answers_again)
            assert client.hget(key_of(NAME), "token") == ticket.token.encode()
        one.calls.record(ticket, failed=False)
        await one.told()
        assert [move.becomes for move in moves_at(own_valkey.url)] == ["open", "half-open", "closed"]


@on_a_loop
async def test_a_call_whose_turn_was_over_does_not_go_on_in_another_one(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.breaker_calls.PROLONG_SECONDS", 0.01)
    async with processes(redis_url, 2, recovery_seconds=0.05) as (one, other):
        with redis.Redis.from_url(redis_url) as client:
            await one.fail(5)
            assert (await soon_gets_through(one)).token
            before = int(client.hget(key_of(NAME), "epoch") or 0)
            client.hset(key_of(NAME), mapping={"state": "open", "until": 0, "token": ""})  # an operator's auto

            async def has_begun_anew_and_given_up() -> bool:
                epoch, token = client.hmget(key_of(NAME), "epoch", "token")
                return int(epoch) > before and not token

            await until(has_begun_anew_and_given_up)
            second = await soon_gets_through(other)
            assert second.token
            assert client.hget(key_of(NAME), "token") == second.token.encode()


@on_a_loop
async def test_a_call_that_should_long_be_over_has_no_turn_any_more(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.breaker_calls.PROLONG_SECONDS", 0.01)
    monkeypatch.setattr("worker.breaker_calls.SPARE_SECONDS", 0.0)
    async with processes(redis_url, 2, recovery_seconds=0.05) as (one, other):
        await one.fail(5)
        await until(lambda: _is_due(redis_url))
        assert (await one.calls.admit(lease_seconds=3)).token
        assert await gets_through(other) is None
        assert (await soon_gets_through(other)).token  # and nobody has told of the first


@pytest.mark.parametrize("end", [{}, {"answered": True}], ids=["says nothing", "was answered"])
@on_a_loop
async def test_a_try_that_neither_fails_nor_succeeds_closes_it_if_it_was_answered(
    redis_url: str, end: dict[str, bool]
) -> None:
    async with processes(redis_url, 1, recovery_seconds=0.05) as (one,):
        await one.fail(5)
        one.calls.record(await soon_gets_through(one), failed=None, **end)
        await one.told()
        assert one.breaker.current_state == ("closed" if end else "half-open")


@on_a_loop
async def test_a_try_that_was_answered_late_opens_it_again(redis_url: str) -> None:
    async with processes(redis_url, 1, recovery_seconds=0.05, slow_call_seconds=1.0) as (one,):
        await one.fail(5)
        one.calls.record(await soon_gets_through(one), failed=None, answered=True, slow=True)
        await one.told()
        assert one.breaker.current_state == "open"


def moves_at(url: str) -> list[Transition]:
    with redis.Redis.from_url(url) as client:
        return moves_in(client)


@on_a_loop
async def test_a_probe_that_says_nothing_closes_nothing_whatever_succeeded_before(redis_url: str) -> None:
    async with processes(redis_url, 2, recovery_seconds=0.05) as (one, other):
        for _ in range(3):
            await one.succeed()  # and Redis is not told yet
        await other.fail(5)
        ticket = await soon_gets_through(one)
        assert ticket.token
        one.calls.record(ticket, failed=None)
        await one.told()
        assert one.breaker.current_state == "half-open"


async def _is_due(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        (seconds, us), until_ms = client.time(), client.hget(f"surefoot:breaker:{NAME}", "until")
        return bool(seconds * 1000 + us / 1000 > float(until_ms or 0))


@on_a_loop
async def test_what_redis_forgot_is_closed_and_its_moves_are_told_of_again(redis_url: str) -> None:
    async with processes(redis_url, 1, recovery_seconds=60) as (one,):
        with redis.Redis.from_url(redis_url) as client:
            await one.fail(5)
            (first,) = moves_in(client)
            client.flushdb()
            assert await one.calls.admit(lease_seconds=1, parks=True)
            await one.fail(5)
            (second,) = moves_in(client)
        assert second.epoch > first.epoch


@on_a_loop
async def test_whoever_does_not_wait_in_the_line_tries_as_soon_as_that_may_be(redis_url: str) -> None:
    async with processes(redis_url, 1, release_per_second=0.01) as (one,):
        await one.fail(5)
        for _ in range(3):
            with pytest.raises(BreakerOpen):
                await one.calls.admit(lease_seconds=1, parks=True)
        assert (await soon_gets_through(one)).token  # and not after minutes, as the third of those


@on_a_loop
@pytest.mark.parametrize(
    ("recovery_seconds", "per_second", "apart_ms"), [(60, 10, 1_000), (40, 5, 2_000), (40, 2, 2_000), (40, 0.25, 4_000)]
)
async def test_jobs_that_wait_look_by_themselves_less_often_than_they_are_let_go_but_soon_enough_to_try(
    redis_url: str, recovery_seconds: float, per_second: float, apart_ms: int
) -> None:
    async with processes(redis_url, 1, release_per_second=per_second, recovery_seconds=recovery_seconds) as (one,):
        with redis.Redis.from_url(redis_url) as client:
            await one.fail(5)
            places = []
            for _ in range(4):
                with pytest.raises(BreakerOpen):
                    await one.calls.admit(lease_seconds=1, parks=True)
                places.append(int(client.hget(key_of(NAME), "line") or 0))
            (opened,) = moves_in(client)
        assert [later - sooner for sooner, later in itertools.pairwise(places)] == [apart_ms] * 3
        assert opened.release_per_second == per_second


@on_a_loop
async def test_a_call_that_would_be_refused_is_before_it_takes_anything_else_and_no_turn_begins_by_that(
    redis_url: str,
) -> None:
    async with processes(redis_url, 1, recovery_seconds=60) as (one,):
        await one.calls.check(parks=True)
        await one.fail(5)
        for parks in (True, False):
            with pytest.raises(BreakerOpen):
                await one.calls.check(parks=parks)
        with redis.Redis.from_url(redis_url) as client:
            client.hset(key_of(NAME), "until", 0)
            await one.calls.check(parks=True)
            await one.calls.check(parks=True)
            assert client.hget(key_of(NAME), "state") == b"open"
        assert (await one.calls.admit(lease_seconds=5, parks=True)).token
        with pytest.raises(BreakerOpen):
            await one.calls.check(parks=True)


@on_a_loop
async def test_while_it_is_closed_and_without_redis_nothing_is_refused_before(own_valkey: Valkey) -> None:
    async with processes(own_valkey.url, 1) as (one,):
        await one.succeed()
        asked = one.calls.asked
        await one.calls.check(parks=True)
        assert one.calls.asked == asked
        await one.fail(5)
        own_valkey.kill()
        await one.calls.check(parks=True)


# ---- pybreaker's face ------------------------------------------------------------------------------------------


class Meta(type):
    """A metaclass, which pybreaker takes for a function."""


class Excluded(Exception, metaclass=Meta):
    """One that says nothing."""


async def fails(kind: type[BaseException]) -> None:
    raise kind("no")


@on_a_loop
async def test_it_is_a_pybreaker_with_its_states_its_listeners_and_its_error(redis_url: str) -> None:
    async with processes(redis_url, 1, recovery_seconds=60) as (one,):
        breaker = one.breaker
        assert isinstance(breaker, pybreaker.CircuitBreaker)
        assert (breaker.name, breaker.fail_max, breaker.reset_timeout, breaker.success_threshold) == (NAME, 5, 60, 1)
        assert isinstance(breaker.state, pybreaker.CircuitClosedState)
        assert await breaker.call_async(asyncio.sleep, 0, "done") == "done"
        for _ in range(5):
            with pytest.raises(ValueError, match="no"):
                await breaker.call_async(fails, ValueError)
            await one.told()
        assert (breaker.current_state, breaker.fail_counter) == (pybreaker.STATE_OPEN, 5)
        assert isinstance(breaker.state, pybreaker.CircuitOpenState)
        with pytest.raises(pybreaker.CircuitBreakerError, match="the breaker of llm is open; ask again in"):
            await breaker.call_async(asyncio.sleep, 0)
        assert one.listener.calls == ["before", "success"] + ["before", "ValueError"] * 5
        assert one.listener.moves == [("closed", "open")]


@pytest.mark.parametrize(
    "exclude", [(Excluded,), (lambda error: isinstance(error, Excluded),)], ids=["class", "function"]
)
@on_a_loop
async def test_what_is_excluded_is_neither_failure_nor_success(redis_url: str, exclude: tuple[Any, ...]) -> None:
    async with processes(redis_url, 1, exclude=exclude, recovery_seconds=60) as (one,):
        await one.fail(4)
        for _ in range(10):
            with pytest.raises(Excluded):
                await one.breaker.call_async(fails, Excluded)
        await one.told()
        assert one.breaker.current_state == "closed"
        await one.fail()  # the fifth in a row, for nothing came in between
        assert one.breaker.current_state == "open"


@on_a_loop
async def test_an_exclusion_that_raises_excludes_nothing_and_costs_no_call_its_error(redis_url: str) -> None:
    def of_an_answer(error: Any) -> bool:
        return bool(error.response.status_code < 500)  # a connection error has none

    async with processes(redis_url, 1, exclude=(of_an_answer,), recovery_seconds=60) as (one,):
        with capture_logs() as logs:
            for _ in range(5):
                with pytest.raises(ConnectionError):
                    await one.breaker.call_async(fails, ConnectionError)
            await one.told()
        assert one.breaker.current_state == "open"
    assert {line["event"] for line in logs} >= {"breaker.exclusion_failed"}


@on_a_loop
async def test_a_call_that_is_cut_off_is_neither_failure_nor_success(redis_url: str) -> None:
    async with processes(redis_url, 1, recovery_seconds=60) as (one,):
        await one.fail(4)
        for _ in range(5):
            call = asyncio.create_task(one.breaker.call_async(asyncio.sleep, 60))
            await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
        await one.told()
        assert one.breaker.current_state == "closed"
        await one.fail()
        assert one.breaker.current_state == "open"


@pytest.mark.parametrize(
    "after", ["soon", float("nan"), float("inf"), -1, [], 10**400], ids=["text", "nan", "inf", "past", "list", "huge"]
)
@on_a_loop
async def test_an_error_of_which_nobody_knows_what_it_says_of_waiting_is_raised_as_it_is(
    redis_url: str, after: Any
) -> None:
    class Odd(Exception):
        pass

    async def raises_it() -> None:
        error = Odd()
        error.after = after  # type: ignore[attr-defined]  # as a library's own may have
        raise error

    async with processes(redis_url, 1) as (one,):
        with pytest.raises(Odd):
            await one.breaker.call_async(raises_it)
        await one.told()


@on_a_loop
async def test_calls_that_are_cut_off_once_they_are_slow_open_it(redis_url: str) -> None:
    async with processes(redis_url, 1, recovery_seconds=60, slow_call_seconds=0.02) as (one,):
        for _ in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):  # a caller that has less patience than whom it calls
                    await one.breaker.call_async(asyncio.sleep, 60)
            await one.told()
        assert one.breaker.current_state == "open"


@on_a_loop
async def test_what_is_excluded_closes_it_where_it_is_what_a_try_ends_with(redis_url: str) -> None:
    async with processes(redis_url, 1, exclude=(Excluded,), recovery_seconds=0.05) as (one,):
        await one.fail(5)
        await until(lambda: _is_due(redis_url))
        with pytest.raises(Excluded):
            await one.breaker.call_async(fails, Excluded)
        await one.told()
        assert one.breaker.current_state == "closed"


@on_a_loop
async def test_a_listener_that_raises_hurts_no_call(redis_url: str) -> None:
    class Raising(pybreaker.CircuitBreakerListener):
        def before_call(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("listener")

    async with processes(redis_url, 1) as (one,):
        one.breaker.add_listener(Raising())
        assert await one.breaker.call_async(asyncio.sleep, 0, 1) == 1


@pytest.mark.parametrize("word", ["open", "close", "half_open", "call"])
@on_a_loop
async def test_what_one_process_has_no_say_in_is_refused_with_what_to_do(redis_url: str, word: str) -> None:
    async with processes(redis_url, 1, listens=False) as (one,):
        with pytest.raises(NotImplementedError, match=r"surefoot breaker 'llm'|call_async"):
            getattr(one.breaker, word)(*[print] * (word == "call"))

"""What a breaker costs while it is closed, and how quick and how single-minded the fleet is when it is not."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pybreaker
import redis

from tests.benchmarks.figures import Figures, Plan
from tests.benchmarks.markdown import section, spread, table
from tests.benchmarks.stage import Ground, Stage
from tests.houses import until
from tests.integration.breaker_process import all_race, forked
from tests.integration.breakers import processes
from worker.breaker_answers import BreakerOpen
from worker.dev.servers import Valkey

CALLS, STOCK_CALLS, PROCESSES = 100_000, 2_000, 20
RECOVERY_SECONDS = 2.0
AWAY_SECONDS, IN_FLIGHT = 1.0, 50
LONGEST_JITTER = 0.999
SECONDS = 60.0
PAUSE_SECONDS = 0.001
OURS, STOCK = "Surefoot", "pybreaker with Redis"
COST, ASKED = "a call through a closed breaker, µs of CPU", "round trips to Redis for each"
VIEW, PROBES = "from open to refused by all, s", "calls that try"
RECOVERY = "from well to closed, over the recovery time"
WAIT, WAIT_KILLED = "the longest wait for a Redis that freezes, s", "the longest wait for a Redis that is killed, s"


def play(ground: Ground, plan: Plan, figures: Figures, number: int) -> Iterator[str]:  # noqa: ARG001  as all measures
    """Measure one round; yields a line for each figure."""
    with ground.stage() as stage:
        for measure, who, figure in _measured(stage):
            figures.add(measure, who, figure)
            yield f"{who}, {measure}: {figure:.4g}"


def show(plan: Plan, figures: Figures) -> str:  # noqa: ARG001  as all measures
    """Return the section of the page."""
    rows = [
        (f"{measure}, {who}" if measure in (COST, ASKED) else measure, spread(figures.of(measure, who), digits))
        for measure, who, digits in (
            (COST, OURS, 1),
            (COST, STOCK, 1),
            (ASKED, OURS, 5),
            (ASKED, STOCK, 2),
            (PROBES, OURS, 0),
            (VIEW, OURS, 3),
            (RECOVERY, OURS, 2),
            (WAIT, OURS, 3),
            (WAIT_KILLED, OURS, 3),
        )
    ]
    how = f"""{CALLS:,} calls let through and recorded one after another in one process, and {STOCK_CALLS:,} by
        pybreaker's own storage in Redis. {PROCESSES} processes call every millisecond: from the failure that opens it
        in one more until the last of them is refused; and while one call tries, until each was refused ten times, how
        many of them try. At worst, which is a dependency that is well as soon as a try has failed: until a call has
        closed the breaker again. The longest time that a call had to wait while Redis stood still for a second, or was
        killed while {IN_FLIGHT} were asking it."""
    return section("The breaker", how, table(("", "measured"), rows))


def _measured(stage: Stage) -> Iterator[tuple[str, str, float]]:
    took, asked = asyncio.run(_closed(stage.redis_url))
    yield COST, OURS, took * 1e6 / CALLS
    yield ASKED, OURS, asked / CALLS
    took, asked = _stock(stage.redis_url)
    yield COST, STOCK, took * 1e6 / STOCK_CALLS
    yield ASKED, STOCK, asked / STOCK_CALLS
    yield VIEW, OURS, _view(stage.redis_url)
    yield PROBES, OURS, _probes(stage.redis_url)
    yield RECOVERY, OURS, asyncio.run(_recovery(stage.redis_url)) / RECOVERY_SECONDS
    yield WAIT, OURS, asyncio.run(_wait(signal.SIGSTOP))
    yield WAIT_KILLED, OURS, asyncio.run(_wait(signal.SIGKILL))


async def _closed(url: str) -> tuple[float, int]:
    with _empty(url):
        async with processes(url, 1) as (one,):
            began = time.process_time()
            for _ in range(CALLS):
                one.calls.record(await one.calls.admit(lease_seconds=60), failed=False)
            return time.process_time() - began, one.calls.asked


def _stock(url: str) -> tuple[float, int]:
    with _empty(url) as client:
        breaker = pybreaker.CircuitBreaker(state_storage=pybreaker.CircuitRedisStorage("closed", client))
        asked = _commands(client)
        began = time.process_time()
        for _ in range(STOCK_CALLS):
            breaker.call(lambda: None)
        return time.process_time() - began, _commands(client) - asked - 1


def _commands(client: Any) -> int:
    return int(client.info("stats")["total_commands_processed"])


def _view(url: str) -> float:
    with _empty(url) as client, forked(url, PROCESSES, "watch", recovery_seconds=SECONDS):
        until(lambda: client.llen("ready") == PROCESSES, seconds=SECONDS)
        opened = asyncio.run(_open(url, SECONDS))
        until(lambda: client.llen("seen") == PROCESSES, seconds=SECONDS)
        return max(float(at) for at in client.lrange("seen", 0, -1)) - opened


def _probes(url: str) -> float:
    with _empty(url), redis.Redis.from_url(url, decode_responses=True) as client:
        asyncio.run(_open(url, 0.5))
        with forked(url, PROCESSES, "race", recovery_seconds=0.5):
            until(lambda: client.llen("ready") == PROCESSES, seconds=SECONDS)
            until(lambda: client.llen("probes"), seconds=SECONDS)
            (probe, *_) = client.lrange("probes", 0, -1)
            until(lambda: all_race(client, PROCESSES, but=probe), seconds=SECONDS)
            return float(client.llen("probes"))


async def _open(url: str, recovery_seconds: float) -> float:
    async with processes(url, 1, recovery_seconds=recovery_seconds) as (one,):
        await one.fail(4)
        opens = time.monotonic()
        await one.fail()
        return opens


async def _recovery(url: str) -> float:
    with _empty(url):
        async with processes(url, 1, jitter=LONGEST_JITTER, recovery_seconds=RECOVERY_SECONDS) as (one,):
            await one.fail(5)
            well: float | None = None
            while well is None or one.breaker.current_state != "closed":
                with suppress(BreakerOpen):
                    ticket = await one.calls.admit(lease_seconds=60)
                    one.calls.record(ticket, failed=well is None)
                    well = well or time.monotonic()
                await asyncio.sleep(PAUSE_SECONDS)
            return time.monotonic() - well


async def _wait(fault: signal.Signals) -> float:
    """Return how long a call had to wait at most while calls went on, and Redis froze or was killed among them."""
    with TemporaryDirectory() as folder, Valkey(Path(folder)) as server:
        async with processes(server.url, 1) as (one,):
            await one.succeed()
            waits: list[float] = []

            async def call() -> None:
                one.calls.stirred()  # or it would not ask
                began = time.monotonic()
                await one.calls.admit(lease_seconds=60)
                waits.append(time.monotonic() - began)

            calling = [asyncio.create_task(call()) for _ in range(IN_FLIGHT)]
            await asyncio.sleep(0)  # they are about to ask
            os.kill(server.pid, fault)
            try:
                await asyncio.gather(*calling)
                ends = time.monotonic() + AWAY_SECONDS
                while time.monotonic() < ends:
                    await call()
                    await asyncio.sleep(PAUSE_SECONDS)
            finally:
                if fault is signal.SIGSTOP:
                    os.kill(server.pid, signal.SIGCONT)
            return max(waits)


@contextmanager
def _empty(url: str) -> Iterator[Any]:
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield client

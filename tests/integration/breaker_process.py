"""Worker processes that share a breaker, for tests and benchmarks: real ones, forked from one that has all imported.

Started as ``python -m tests.integration.breaker_process URL COUNT MODE``; each is ready once it hears what is said.

    watch   calls again and again until it is refused, and notes down when that was
    race    calls again and again until the breaker is closed; whose call tries notes down its process, and waits for
            ``well``
    die     the same: whose call tries is killed
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis.asyncio

from tests.houses import ROOT
from tests.integration.breakers import Process, processes
from worker.breaker_answers import BreakerOpen
from worker.breaker_calls import Ticket

PAUSE_SECONDS = 0.001
# How long a probe may take.
LEASE_SECONDS = 600.0
# How often each was refused by the time that all of them race.
REFUSALS = 10


async def main(url: str, mode: str, recovery_seconds: float) -> None:
    client: Any = redis.asyncio.Redis.from_url(url, decode_responses=True)
    async with processes(url, 1, recovery_seconds=recovery_seconds) as (one,):
        await client.rpush("ready", os.getpid())
        await (watch if mode == "watch" else race)(one, client)
    await client.aclose()


async def watch(one: Process, client: Any) -> None:
    while (ticket := await admitted(one)) is not None:
        one.calls.record(ticket, failed=None)  # a success would end the row of failures that is to open it
        await asyncio.sleep(PAUSE_SECONDS)
    await client.rpush("seen", time.monotonic())


async def race(one: Process, client: Any) -> None:
    refused = 0
    while (ticket := await admitted(one)) is None or ticket.token or ticket.local:
        if ticket is not None and ticket.local:  # Redis took its time, on a full machine: that was this process's word
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        if ticket is not None:
            await client.rpush("probes", os.getpid())
            while not await client.exists("well"):  # noqa: ASYNC110  it is a test's, in another process
                await asyncio.sleep(PAUSE_SECONDS)
            one.calls.record(ticket, failed=False)
            continue
        refused += 1
        await client.hset("refused", str(os.getpid()), refused)
        await asyncio.sleep(PAUSE_SECONDS)
    await client.rpush("closed", time.monotonic())


async def admitted(one: Process) -> Ticket | None:
    try:
        return await one.calls.admit(lease_seconds=LEASE_SECONDS)
    except BreakerOpen:
        return None


def all_race(client: Any, count: int, *, but: str) -> bool:
    """Whether everybody has been refused often enough, `but` the process whose call tries, of which that is no matter.

    `client` decodes what it is answered.
    """
    refused = {pid: int(times) for pid, times in client.hgetall("refused").items() if pid != but}
    return len(refused) >= count - 1 and min(refused.values()) >= REFUSALS


@contextmanager
def forked(url: str, count: int, mode: str, *, recovery_seconds: float) -> Iterator[None]:
    """Run so many; all of them are gone at the end of the block. The breaker is `tests.integration.breakers.NAME`."""
    command = [sys.executable, "-m", "tests.integration.breaker_process", url, str(count), mode, str(recovery_seconds)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) as process:
        try:
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()  # whoever started them has gone, and so they go


def _parent(url: str, count: int, mode: str, recovery_seconds: float) -> None:
    children = []
    for _ in range(count):
        if (pid := os.fork()) == 0:
            asyncio.run(main(url, mode, recovery_seconds))
            os._exit(0)
        children.append(pid)
    sys.stdin.read()
    for pid in children:
        os.kill(pid, signal.SIGKILL)  # not yet waited for, so that it is no other's by now
        os.waitpid(pid, 0)


if __name__ == "__main__":
    _parent(sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))

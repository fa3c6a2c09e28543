"""Limits among real processes that ask at the same time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from tests import loops
from tests.houses import ROOT, until
from tests.integration.limited import job, kept, limited, workers
from tests.integration.limited_process import AT_ONCE, LEASE_SECONDS

PROCESSES, PLACES = 4, 7
JOBS = PROCESSES * AT_ONCE


@contextmanager
def processes(url: str, count: int, *, places: int, seconds: float) -> Iterator[list[subprocess.Popen[bytes]]]:
    command = [sys.executable, "-m", "tests.integration.limited_process", url]
    started = [subprocess.Popen([*command, f"w{n}", str(places), str(seconds)], cwd=ROOT) for n in range(count)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_two_hundred_who_ask_at_once_in_four_processes_all_run_and_never_too_many(redis_url: str) -> None:
    everything = processes(redis_url, PROCESSES, places=PLACES, seconds=0.01)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client, everything as started:
        client.rpush("rings", *range(JOBS))
        until(lambda: client.llen("ready") == PROCESSES)
        client.rpush("go", *["go"] * PROCESSES)
        until(lambda: client.llen("done") >= JOBS, seconds=50)
        client.rpush("rings", *["stop"] * JOBS)
        assert [process.wait(20) for process in started] == [0] * PROCESSES
        assert sorted(map(int, client.lrange("done", 0, -1))) == list(range(JOBS))
        assert client.zscore("most", "running") == PLACES
        # Each was held about once: it was its turn when it was rung, and nobody was in its place. Most were, or they
        # did not ask at once.
        assert JOBS / 2 < int(client.get("holds") or 0) < 1.2 * JOBS
    assert kept(redis_url, limited(fleet_concurrency=PLACES)) == {"state": 1}


@loops.on_a_loop
async def test_the_places_of_a_process_stay_while_it_lives_and_are_free_once_it_was_killed(redis_url: str) -> None:
    spec = limited(fleet_concurrency=PLACES)
    alone = processes(redis_url, 1, places=PLACES, seconds=1_000)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client, alone as (process,):
        client.rpush("rings", *range(1, PLACES + 1))
        client.rpush("go", "go")
        until(lambda: client.get("running") == str(PLACES))
        async with workers(redis_url, "other") as (other,):
            two_leases = time.monotonic() + 2 * LEASE_SECONDS
            while time.monotonic() < two_leases:
                assert not await other.admits(spec, job(100))
            process.kill()
            await loops.until(lambda: other.admits(spec, job(100)))

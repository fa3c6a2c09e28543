"""Announcements on a real Redis, and on one that is away, hangs, or is none: whoever announces never notices."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from structlog.testing import capture_logs

from producer import announce
from producer.announce import CHANNEL_PREFIX, HELD, Announcer
from tests.houses import ROOT, until
from worker.dev.servers import Valkey

AT_ONCE_SECONDS = 2.0


def test_every_job_is_announced_on_its_own_channel(announcer: Announcer, client: redis.Redis) -> None:
    jobs = [uuid4() for _ in range(3)]
    with subscribed(client, jobs) as heard:
        announcer.announce(jobs)
        announcer.announce([uuid4()])  # nobody listens to it
        until(lambda: heard() == set(jobs))


def test_what_has_gathered_goes_out_in_one_command(announcer: Announcer, client: redis.Redis) -> None:
    client.config_resetstat()
    with subscribed(client, jobs := [uuid4() for _ in range(1000)]) as heard:
        announcer.announce(jobs)
        until(lambda: heard() == set(jobs))
    assert client.info("commandstats")["cmdstat_eval"]["calls"] == 1


def test_closing_sends_what_has_gathered_and_ends_the_thread_and_the_connection(
    announcer: Announcer, client: redis.Redis
) -> None:
    with subscribed(client, jobs := [uuid4() for _ in range(5000)]) as heard:
        announcer.announce(jobs)
        announcer.close()
        until(lambda: heard() == set(jobs))
    assert not running()
    until(lambda: [each["cmd"] for each in client.client_list()] == ["client|list"])


def test_a_closed_announcer_announces_again(announcer: Announcer, client: redis.Redis) -> None:
    announcer.announce([uuid4()])
    announcer.close()
    announcer.close()
    with subscribed(client, jobs := [uuid4()]) as heard:
        announcer.announce(jobs)
        until(lambda: heard() == set(jobs))


def test_an_idle_thread_ends_and_another_begins(
    announcer: Announcer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "IDLE_SECONDS", 0.01)
    announcer.announce([uuid4()])
    until(lambda: not running())
    with subscribed(client, jobs := [uuid4()]) as heard:
        announcer.announce(jobs)
        until(lambda: heard() == set(jobs))


def test_a_forked_child_announces_over_a_connection_of_its_own(valkey: Valkey, client: redis.Redis) -> None:
    code = """
import os, sys
from uuid import UUID
from producer.announce import Announcer
announcer = Announcer(sys.argv[1])
first, childs, parents = map(UUID, sys.argv[2:])
announcer.announce([first])
child = os.fork()
announcer.announce([parents if child else childs])
announcer.close()
child and os.waitpid(child, 0)
os._exit(0)
"""
    with subscribed(client, jobs := [uuid4() for _ in range(3)]) as heard:
        subprocess.run([sys.executable, "-c", code, valkey.url, *map(str, jobs)], cwd=ROOT, check=True)
        until(lambda: heard() == set(jobs))


def test_nothing_to_announce_needs_no_thread(announcer: Announcer) -> None:
    announcer.announce([])
    assert not running()


def test_a_broker_that_is_no_redis_is_told_nothing() -> None:
    Announcer("amqp://guest@127.0.0.1:1//").announce([uuid4()])
    assert not running()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis://127.0.0.1:port/0", "redis://127.0.0.1/0?no_such=1"])
def test_a_redis_that_is_away_costs_nobody_anything_and_is_said_once(url: str) -> None:
    away = Announcer(url)
    with capture_logs() as lines:
        began = time.monotonic()
        for _ in range(100):
            away.announce([uuid4()])
        assert time.monotonic() - began < AT_ONCE_SECONDS
        until(lambda: lines)
        away.announce([uuid4()])
        away.close()
    (line,) = lines
    assert (line["event"], line["log_level"], line["for_seconds"]) == ("results.unannounced", "warning", 5.0)
    assert 1 <= line["jobs"] <= 100


def test_a_redis_that_hangs_costs_nobody_anything_and_no_memory() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, capture_logs() as lines:
        hanging = Announcer(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        began = time.monotonic()
        hanging.announce(uuid4() for _ in range(2 * HELD))
        assert time.monotonic() - began < 2 * AT_ONCE_SECONDS  # making the ids takes most of it
        until(lambda: lines)
        hanging.close()
    assert lines[0]["jobs"] == HELD


def test_announcements_go_on_once_redis_is_back(
    valkey: Valkey, announcer: Announcer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "QUIET_SECONDS", 0.01)
    announcer.announce([uuid4()])
    valkey.kill()
    with capture_logs() as lines:
        until(lambda: lines or announced_in_vain(announcer))
    valkey.start()
    with subscribed(client, jobs := [uuid4()]) as heard:
        until(lambda: heard() == set(jobs) or announced_in_vain(announcer, jobs))


@contextmanager
def subscribed(client: redis.Redis, job_ids: list[UUID]) -> Iterator[Callable[[], set[UUID]]]:
    """Listen as anybody could; the answer is every job that was heard of so far."""
    heard: set[UUID] = set()
    pubsub: Any = client.pubsub()  # type: ignore[no-untyped-call]
    with pubsub:
        pubsub.psubscribe(f"{CHANNEL_PREFIX}*")
        until(lambda: pubsub.get_message(timeout=1.0))

        def look() -> set[UUID]:
            while (message := pubsub.get_message()) is not None:
                assert message["data"] == b""
                heard.add(UUID(message["channel"].decode().removeprefix(CHANNEL_PREFIX)))
            return heard.intersection(job_ids)

        yield look


def announced_in_vain(announcer: Announcer, job_ids: Iterable[UUID] = (UUID(int=0),)) -> bool:
    announcer.announce(job_ids)
    return False


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "announcer"]

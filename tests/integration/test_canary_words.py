"""A canary's words and what it hears of them, over a real broker, without a worker around it."""

# ruff: noqa: SLF001  what it counts is its own, and the point

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from celery import Celery
from kombu.transport.pyamqp import Channel as RabbitChannel

from producer import Settings
from tasks import load
from tests.houses import until
from worker.canary import Canary
from worker.parts import assemble
from worker.settings import WorkerSettings

WORDS = 30
ALLOWED = 5
EVERY_SECONDS = 0.05
SECONDS = 30.0


def canary_of(redis_url: str) -> Canary:
    app = Celery("canary", broker=redis_url, set_as_current=False)
    return Canary(app, worker="w", every_seconds=EVERY_SECONDS, deaf_seconds=ALLOWED * EVERY_SECONDS, grace=0.0)


@contextmanager
def listening(canary: Canary) -> Iterator[None]:
    """Have it listen for the block, as a worker's consumer does."""
    over = threading.Event()

    def listen() -> None:
        with canary._app.connection_for_read() as connection:
            consumer = canary.listen(connection.default_channel, is_closing=over.is_set)
            while not over.is_set():
                try:
                    connection.drain_events(timeout=0.05)
                except TimeoutError:
                    continue
            consumer.cancel()

    thread = threading.Thread(target=listen)
    thread.start()
    until(lambda: canary._channel)
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_word_that_is_heard_before_its_sender_knows_that_it_has_left_counts(redis_url: str) -> None:
    canary = canary_of(redis_url)
    with listening(canary):
        for word in range(1, WORDS + 1):
            assert canary._send()
            until(lambda heard=word: canary._heard == heard, seconds=5.0)  # type: ignore[misc]


def test_a_worker_that_has_just_found_its_broker_again_has_all_the_silence_that_it_is_allowed_before_it(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary, ended = canary_of(redis_url), threading.Event()
    monkeypatch.setattr(canary, "_end", lambda _: ended.set())
    canary.start()
    until(lambda: canary._sent > 2 * ALLOWED)  # unconnected, of which it is allowed more
    with canary._app.connection_for_read() as connection:
        sent = canary._sent
        canary.listen(connection.default_channel, is_closing=lambda: False)
        assert ended.wait(SECONDS)
        assert canary._sent - sent >= ALLOWED


def test_a_channel_that_leaves_the_counting_to_its_broker_is_never_full(redis_url: str) -> None:
    canary = canary_of(redis_url)
    canary._channel = RabbitChannel.__new__(RabbitChannel)
    assert not canary._is_full()


def test_a_worker_that_is_closing_already_is_not_ended_once_more(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _, signal: killed.append(signal))
    canary = canary_of(redis_url)
    with canary._app.connection_for_read() as connection:
        canary.listen(connection.default_channel, is_closing=lambda: True)
        canary._end(1.0)
    assert killed == []


STUCK = """
import signal
from celery import Celery
from worker import canary
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as one is that never comes back from what it does
canary.LAST_SECONDS = 0.1
app = Celery("canary", broker="redis://127.0.0.1:1/0", set_as_current=False)
canary.Canary(app, worker="w", every_seconds=1.0, deaf_seconds=1.0, grace=0.1)._end(1.0)
"""


def test_a_deaf_worker_that_does_not_come_to_its_end_is_ended() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 1
    assert re.findall(r"worker\.\w+", done.stdout + done.stderr) == ["worker.deaf", "worker.stuck"]


def test_a_worker_that_ends_for_it_has_as_long_as_any_of_its_actions_may_take(settings: Settings) -> None:
    actions = load(("tests.actions",))
    known = WorkerSettings(database_url=settings.database_url, redis_url=settings.redis_url)
    canary = assemble(known, actions, Celery("canary", set_as_current=False)).canary
    assert canary._grace == max(spec.policy.timeout for spec in actions.values())
    assert canary._grace > known.soft_shutdown_seconds

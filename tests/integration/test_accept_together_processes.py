"""Processes whose threads share accepts: an interrupt, a fork and an end strand nobody, and lose nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, text

from producer import Producer, Settings
from tests.houses import ROOT, until
from tests.integration.test_accept import rows
from tests.integration.test_accept_together import (
    ADD,
    ANSWER_SECONDS,
    SLOW,
    administer,
    sleeps,
    transaction,
    written_together,
)
from tests.locks import waiting_for_locks

ASK = """
import os, signal, sys, threading, time
from producer import Producer, together
together.PATIENCE_SECONDS = 3600
producer = Producer()
outcomes = {}
def enqueue(key):
    outcomes[key] = producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key=key).outcome
def begin(*keys):
    for key in keys:
        threading.Thread(target=enqueue, args=(key,)).start()
def until(condition):
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
def gathered(count):
    call = producer._single._together._gathering
    return call is not None and len(call.places) == count
def say(word):
    print(word, flush=True)
def end():
    until(lambda: threading.active_count() <= 2)  # this one, and the bell's
    say(dict(sorted(outcomes.items())))
"""
# The main thread leads, and others have joined.
LEADING = """
enqueue("before")
begin("first")
input()
def crowd():
    until(lambda: gathered(1))
    begin("k1", "k2", "k3")
    until(lambda: gathered(4))
    say("gathered")
threading.Thread(target=crowd).start()
try:
    enqueue(sys.argv[1])
except KeyboardInterrupt:
    say("interrupted")
end()
"""
FORKING = """
enqueue("before")
begin("first")
input()
begin("k1")
until(lambda: gathered(1))
begin("k2", "k3")
until(lambda: gathered(3))
child = os.fork()
if not child:
    signal.alarm(15)
    enqueue("child")
    os._exit(0 if outcomes["child"] == "created" else 1)
say(os.waitpid(child, 0)[1])
end()
"""
ENDING = """
import atexit, itertools
together.PATIENCE_SECONDS = 0.05
def go_on(name):
    for number in itertools.count():
        enqueue(f"{name}-{number}")
for name in range(4):
    threading.Thread(target=go_on, args=(name,), daemon=True).start()
for number in range(50):
    enqueue(f"main-{number}")
atexit.register(enqueue, "at-the-end")
"""


@contextmanager
def process(settings: Settings, code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A producer of its own process, which says what has become of it, a line at a time."""
    environment = os.environ | {
        "SUREFOOT_DATABASE_URL": settings.database_url,
        "SUREFOOT_REDIS_URL": settings.redis_url,
    }
    command = [sys.executable, "-c", ASK + code, *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as made:  # type: ignore[call-overload]
        try:
            yield made
        finally:
            made.kill()


def line(made: subprocess.Popen[str]) -> str:
    assert made.stdout is not None
    return made.stdout.readline().strip()


def go_on(made: subprocess.Popen[str]) -> None:
    assert made.stdin is not None
    made.stdin.write("\n")
    made.stdin.flush()


CREATED = {"before": "created", "first": "replayed", "k1": "created", "k2": "created", "k3": "created"}


def test_a_leader_interrupted_before_its_statement_left_strands_nobody(
    lone_producer: Producer, settings: Settings, engine: Engine
) -> None:
    with process(settings, LEADING, "leader") as made:
        with transaction(engine) as accepting:
            lone_producer.enqueue("test.add", ADD, idempotency_key="first", connection=accepting)
            until(lambda: waiting_for_locks(engine))
            go_on(made)
            assert line(made) == "gathered"
            made.send_signal(signal.SIGINT)
            assert line(made) == "interrupted"
            until(lambda: rows(engine) == 4)  # and they do not wait for the first one
        assert line(made) == str(CREATED)
        assert made.wait(ANSWER_SECONDS) == 0
    assert lone_producer.find("test.add", "leader") is None


def test_a_leader_interrupted_while_its_statement_is_out_strands_nobody(
    lone_producer: Producer, settings: Settings, engine: Engine
) -> None:
    administer(engine, SLOW)
    with process(settings, LEADING, "slow") as made:
        with transaction(engine) as accepting:
            lone_producer.enqueue("test.add", ADD, idempotency_key="first", connection=accepting)
            until(lambda: waiting_for_locks(engine))
            go_on(made)
            assert line(made) == "gathered"
        until(lambda: sleeps(engine))
        made.send_signal(signal.SIGINT)
        administer(engine, "DELETE FROM slow")
        assert line(made) == "interrupted"
        assert line(made) == str(CREATED)
        assert made.wait(ANSWER_SECONDS) == 0
    assert written_together(engine) == [["before"], ["first"], ["k1", "k2", "k3", "slow"]]


def test_a_child_forked_while_requests_gather_accepts_and_its_parent_goes_on(
    lone_producer: Producer, settings: Settings, engine: Engine
) -> None:
    with process(settings, FORKING) as made:
        with transaction(engine) as accepting:
            lone_producer.enqueue("test.add", ADD, idempotency_key="first", connection=accepting)
            until(lambda: waiting_for_locks(engine))
            go_on(made)
            assert line(made) == "0"
            assert lone_producer.find("test.add", "child") is not None
        assert line(made) == str(CREATED)
        assert made.wait(ANSWER_SECONDS) == 0


@pytest.mark.usefixtures("lone_producer")
def test_a_process_ends_while_threads_of_its_own_go_on_enqueueing(settings: Settings, engine: Engine) -> None:
    with process(settings, ENDING) as made:
        assert made.wait(ANSWER_SECONDS) == 0
    with engine.connect() as connection:
        main = connection.execute(text("SELECT count(*) FROM jobs WHERE idempotency_key LIKE 'main-%'")).scalar()
    assert main == 50
    assert any("at-the-end" in each for each in written_together(engine))

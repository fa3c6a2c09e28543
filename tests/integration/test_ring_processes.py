"""Processes that ring: what an end and a fork leave to be rung, and by whom."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text

from producer import Settings
from tests.houses import ROOT
from tests.rung import job_ids, rung

END_SECONDS = 40.0
MANY = 3000
ENQUEUE = """
import atexit, os, sys, threading
from producer import Producer, ring
producer = Producer()
def enqueue(*keys, action="test.trace"):
    producer.enqueue_many([{"action": action, "idempotency_key": key} for key in keys])
"""
# Each ends at once after it has enqueued.
ENDS = {
    "after one job": "enqueue('a')",
    "after one job at a time": "for n in range(30): enqueue(f'{n}')",
    "after many sync jobs": f"enqueue(*map(str, range({MANY})), action='test.trace_sync')",
    "by an error": "enqueue('a', 'b'); raise ValueError",
    "by an exit": "enqueue('a', 'b'); sys.exit(3)",
    "while another thread enqueues": "enqueue('a'); threading.Thread(target=lambda: enqueue('b')).start()",
    "with an enqueue at the end": "enqueue('a'); atexit.register(lambda: enqueue('b'))",
    "after a close": "enqueue('a'); producer.close(); enqueue('b')",
}
# Either cannot load Celery any more, and leaves its ring to the relay.
TOO_LATE = {
    "by a thread that outlives the main one": """
main = threading.main_thread()
threading.Thread(target=lambda: (main.join(), enqueue('a'))).start()
""",
    "at the end": "atexit.register(lambda: enqueue('a'))",
}
PENDING_AT_A_FORK = """
import redis
ring.GATHER_SECONDS = 3600  # what is rung after the first one waits for the end of the process
enqueue("first")
while not redis.Redis.from_url(producer.settings.redis_url).keys("actions*"):
    pass
enqueue("pending-1")
enqueue("pending-2")
child = os.fork()
enqueue("parent's" if child else "child's")
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
# A worker's relay rings with the worker's own app, and its pool forks another child meanwhile.
WITH_AN_APP_OF_ITS_OWN = """
from celery import Celery
settings = producer.settings
app = Celery("worker", broker=settings.redis_url, set_as_current=False)
app.conf.task_send_sent_event = True  # as in celeryconfig.py
producer = Producer(settings, bell=ring.Bell(settings.redis_url, timeout_seconds=1, app=app))
"""
FORKING_WHILE_IT_RINGS = """
ring.GATHER_SECONDS = 0
enqueue("first")
producer.flush()
forked, rung = threading.Event(), iter(range(1_000_000))
def go_on():
    while not forked.is_set():
        producer._bell.ring([ring.Ring(ring.uuid4(), "none", "nobody", 5, "", "", 1)])
        if next(rung) % 10 == 0:
            producer.flush()
threading.Thread(target=go_on).start()
children = []
for number in range(12):
    child = os.fork()
    if not child:
        enqueue(f"child-{number}")
        sys.exit(0)
    children.append(child)
statuses = [os.waitpid(child, 0)[1] for child in children]
forked.set()
assert not any(statuses), statuses
"""

pytestmark = pytest.mark.usefixtures("lone_producer")


def run(settings: Settings, code: str) -> subprocess.CompletedProcess[str]:
    """Run a process of its own to its end."""
    environment = os.environ | {
        "SUREFOOT_DATABASE_URL": settings.database_url,
        "SUREFOOT_REDIS_URL": settings.redis_url,
    }
    command = [sys.executable, "-c", ENQUEUE + code]
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=END_SECONDS
    )


def keys(engine: Engine) -> dict[str, str]:
    """Every accepted job's key, by its id."""
    with engine.connect() as connection:
        return {str(row.id): row.idempotency_key for row in connection.execute(text("SELECT * FROM jobs"))}


@pytest.mark.parametrize("code", ENDS.values(), ids=ENDS.keys())
def test_a_process_that_ends_has_rung_each_job_that_it_enqueued(settings: Settings, engine: Engine, code: str) -> None:
    ended = run(settings, code)
    accepted = keys(engine)
    assert accepted
    assert Counter(map(str, job_ids(rung(settings.redis_url)))) == Counter(list(accepted)), ended.stderr
    assert "ring.failed" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("code", TOO_LATE.values(), ids=TOO_LATE.keys())
def test_a_first_job_that_comes_too_late_to_be_rung_is_accepted_all_the_same(
    settings: Settings, engine: Engine, code: str
) -> None:
    ended = run(settings, code)
    assert (ended.returncode, list(keys(engine).values())) == (0, ["a"]), ended.stderr
    assert "ring.failed" in ended.stdout


def test_a_redis_that_hangs_does_not_keep_a_process_from_ending(settings: Settings, engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = replace(settings, redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        ended = run(hanging, ENDS["after many sync jobs"])
    assert (ended.returncode, len(keys(engine))) == (0, MANY), ended.stderr


def test_a_redis_that_is_away_does_not_keep_a_process_from_ending(settings: Settings, engine: Engine) -> None:
    ended = run(replace(settings, redis_url="redis://127.0.0.1:1/0"), ENDS["after one job at a time"])
    assert (ended.returncode, len(keys(engine))) == (0, 30), ended.stderr
    assert ended.stdout.count("ring.failed") >= 1


def test_what_a_parent_has_not_sent_yet_stays_the_parent_s(settings: Settings, engine: Engine) -> None:
    ended = run(settings, PENDING_AT_A_FORK)
    assert ended.returncode == 0, ended.stderr
    accepted = keys(engine)
    sent = [[accepted[str(job_id)] for job_id in message.job_ids] for message in rung(settings.redis_url)]
    assert sent == [["first"], ["child's"], ["pending-1", "pending-2", "parent's"]]


@pytest.mark.parametrize("app", ["", WITH_AN_APP_OF_ITS_OWN], ids=["a producer", "a worker"])
def test_children_forked_while_their_parent_rings_ring_what_they_enqueue(
    settings: Settings, engine: Engine, app: str
) -> None:
    ended = run(settings, app + FORKING_WHILE_IT_RINGS)
    assert ended.returncode == 0, ended.stderr
    accepted = keys(engine)
    assert len(accepted) == 13
    assert Counter(map(str, job_ids(rung(settings.redis_url)))) == Counter(list(accepted))
    assert len(set(job_ids(others := rung(settings.redis_url, "nobody")))) == len(others)

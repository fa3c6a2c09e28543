"""Waiting on a real Redis, with a ledger that says what the test wants: what wakes whom, and what does not."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from structlog.testing import capture_logs

from producer import LedgerUnavailable, State, listen, waiting
from producer.announce import CHANNEL_PREFIX, Announcer
from producer.waiting import Waiting
from tests.houses import ROOT, until
from worker.dev.servers import Valkey

SECONDS = 20.0
# So long that within a test no look makes up for anything.
NEVER = math.inf


@dataclass
class Ledger:
    """Where jobs stand; a job that it does not know is running."""

    over: set[UUID] = field(default_factory=set)
    looks: list[list[UUID]] = field(default_factory=list)
    error: Exception | None = None

    def states_of(self, job_ids: Sequence[UUID]) -> Mapping[UUID, State]:
        self.looks.append(list(job_ids))
        if self.error is not None:
            raise self.error
        return {each: State.SUCCEEDED if each in self.over else State.RUNNING for each in job_ids}


@dataclass
class Room:
    """A place to wait in, and what is known of it from outside."""

    waiting: Waiting
    ledger: Ledger
    threads: ThreadPoolExecutor

    def enter(self, job_id: UUID, seconds: float = SECONDS, **options: Any) -> Future[bool]:
        """Wait in a thread; the future says whether it was woken before its time was over."""

        def wait() -> bool:
            end = time.monotonic() + seconds
            self.waiting.wait(job_id, until=end, **options)
            return time.monotonic() < end

        return self.threads.submit(wait)


@pytest.fixture
def room_at() -> Iterator[Callable[..., Room]]:
    """Make a room whose Redis is at a URL; all are closed in the end."""
    rooms: list[Room] = []

    def make(url: str, look_seconds: float = NEVER) -> Room:
        ledger = Ledger()
        place = Waiting(url, states_of=ledger.states_of, over=lambda s: s is State.SUCCEEDED, look_seconds=look_seconds)
        rooms.append(Room(place, ledger, ThreadPoolExecutor(250)))
        return rooms[-1]

    yield make
    for room in rooms:
        room.threads.shutdown()
        room.waiting.close()


@pytest.fixture
def room(room_at: Callable[..., Room], valkey: Valkey) -> Room:
    """A room in which only an announcement, or the one look after the subscription, can wake anybody."""
    return room_at(valkey.url)


# ── What wakes ───────────────────────────────────────────────────────────────────────────────────────────


def test_an_announcement_wakes_everybody_who_waits_for_the_job_and_nobody_else(
    room: Room, client: redis.Redis, announcer: Announcer
) -> None:
    job, other = uuid4(), uuid4()
    both, another = [room.enter(job), room.enter(job)], room.enter(other)
    until(lambda: looked_at(room, job) and looked_at(room, other))
    until(lambda: listeners(client, job, other) == 2)
    announcer.announce([job])
    assert [each.result(SECONDS) for each in both] == [True, True]
    assert not another.done()
    announcer.announce([other])
    assert another.result(SECONDS)


def test_a_job_that_ended_before_it_was_listened_for_is_seen_by_the_look_that_follows(room: Room) -> None:
    room.ledger.over.add(job := uuid4())
    assert room.enter(job).result(SECONDS)


def test_whoever_joins_those_who_wait_for_a_job_has_it_looked_at_again(room: Room, client: redis.Redis) -> None:
    first = room.enter(job := uuid4())
    until(lambda: listeners(client, job) and looked_at(room, job))
    room.ledger.over.add(job)
    assert room.enter(job).result(SECONDS)
    assert first.result(SECONDS)


def test_one_who_gives_up_leaves_the_others_listening(room: Room, client: redis.Redis, announcer: Announcer) -> None:
    patient, hasty = room.enter(job := uuid4()), room.enter(job, 0.05)
    assert not hasty.result(SECONDS)
    until(lambda: listeners(client, job) == 1)
    until(lambda: looked_at(room, job))
    announcer.announce([job])
    assert patient.result(SECONDS)


def test_a_job_that_nobody_waits_for_any_more_is_not_listened_for(room: Room, client: redis.Redis) -> None:
    job = uuid4()
    for _ in range(3):
        assert not room.enter(job, 0.05).result(SECONDS)
        until(lambda: listeners(client, job) == 0)


def test_a_lost_announcement_is_made_up_for_by_the_next_look(
    room_at: Callable[..., Room], valkey: Valkey, client: redis.Redis
) -> None:
    room = room_at(valkey.url, look_seconds=0.2)
    job, other = uuid4(), uuid4()
    both = [room.enter(job), room.enter(other)]
    until(lambda: listeners(client, job, other) == 2)
    room.ledger.over |= {job, other}
    assert [each.result(SECONDS) for each in both] == [True, True]


def test_a_time_that_is_over_already_waits_for_nothing(room: Room) -> None:
    assert not room.enter(uuid4(), 0).result(SECONDS)
    assert room.ledger.looks == []


def test_an_error_of_the_look_is_everybodys(room: Room) -> None:
    room.ledger.error = LedgerUnavailable("Postgres cannot be reached: gone")
    for each in [room.enter(uuid4()) for _ in range(3)]:
        with pytest.raises(LedgerUnavailable, match="gone"):
            each.result(SECONDS)


def test_what_is_to_be_done_meanwhile_is_done_without_looking_and_its_error_ends_the_waiting(room: Room) -> None:
    calls: list[int] = []

    def call() -> None:
        calls.append(len(room.ledger.looks))
        if len(calls) == 20:
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        room.enter(uuid4(), every=0.0, meanwhile=call).result(SECONDS)
    assert calls[-1] <= 10


# ── How much it costs ────────────────────────────────────────────────────────────────────────────────────


def test_two_hundred_waiters_share_one_connection_and_are_looked_at_together(
    room_at: Callable[..., Room], valkey: Valkey, client: redis.Redis, announcer: Announcer
) -> None:
    room = room_at(valkey.url, look_seconds=0.5)
    jobs = [uuid4() for _ in range(200)]
    all_of_them = [room.enter(job) for job in jobs]
    until(lambda: listeners(client, *jobs) == 200)
    (connection,) = [each for each in client.client_list() if each["sub"] != "0"]
    assert connection["sub"] == "200"
    begun = len(room.ledger.looks)
    until(lambda: len(room.ledger.looks) >= begun + 3)
    assert len(room.ledger.looks[-1]) == 200
    announcer.announce(jobs)
    assert all(each.result(SECONDS) for each in all_of_them)
    until(lambda: listeners(client, *jobs) == 0)


def test_the_threads_and_the_connection_go_when_nobody_has_waited_for_a_while(
    room: Room, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(listen, "IDLE_SECONDS", 0.05)
    for _ in range(2):
        assert not room.enter(uuid4(), 0.05).result(SECONDS)
        until(lambda: not running())
        until(lambda: connections(client) == 1)  # the one that asks


def test_closing_ends_the_threads_and_the_connection_at_once(room: Room, client: redis.Redis) -> None:
    for _ in range(2):
        assert not room.enter(uuid4(), 0.05).result(SECONDS)
        room.waiting.close()
        room.waiting.close()
        assert not running()
        until(lambda: connections(client) == 1)


def test_whoever_waits_while_it_is_closed_goes_on_and_takes_the_connection_along(
    room: Room, client: redis.Redis, announcer: Announcer
) -> None:
    job = uuid4()
    waiter = room.enter(job)
    until(lambda: listeners(client, job) and looked_at(room, job))
    room.waiting.close()
    announcer.announce([job])
    assert waiter.result(SECONDS)
    until(lambda: not running())


# ── Where Redis is away ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("url", ["amqp://guest@127.0.0.1:1//", "redis://127.0.0.1:1/0", "redis://127.0.0.1:port/0"])
def test_without_redis_the_ledger_is_looked_at_often_in_one_look_for_all(
    room_at: Callable[..., Room], url: str
) -> None:
    room = room_at(url)
    with capture_logs() as lines:
        jobs = [uuid4() for _ in range(50)]
        all_of_them = [room.enter(job) for job in jobs]
        until(lambda: room.ledger.looks and set(room.ledger.looks[-1]) == set(jobs))
        begun = time.monotonic(), len(room.ledger.looks)
        until(lambda: len(room.ledger.looks) >= begun[1] + 12)
        assert time.monotonic() - begun[0] > 0.4  # ever less often
        room.ledger.over |= set(jobs)
        assert all(each.result(SECONDS) for each in all_of_them)
    assert [line["event"] for line in lines] == ["results.unheard"] * url.startswith("redis")


def test_a_redis_that_dies_and_comes_back_is_heard_again_over_a_new_connection(
    room: Room, valkey: Valkey, client: redis.Redis, announcer: Announcer
) -> None:
    jobs = [uuid4() for _ in range(3)]
    during, after, late = (room.enter(job) for job in jobs)
    until(lambda: listeners(client, *jobs) == 3)
    with capture_logs() as lines:
        valkey.kill()
        room.ledger.over.add(jobs[0])
        assert during.result(SECONDS)  # by a look: those who hear nothing are looked at often
        valkey.start()
        until(lambda: listeners(client, *jobs) == 2)
        settle(room)
        room.ledger.over.add(jobs[1])
        announcer.announce(jobs[1:])
        assert after.result(SECONDS)
        assert late.result(SECONDS)
    assert [line["event"] for line in lines].count("results.unheard") == 1


def test_a_redis_that_hangs_is_given_up_and_heard_again_later(
    room: Room, valkey: Valkey, client: redis.Redis, announcer: Announcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(listen, "SILENT_SECONDS", 0.1)
    jobs = [uuid4() for _ in range(2)]
    during, after = (room.enter(job) for job in jobs)
    until(lambda: listeners(client, *jobs) == 2)
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        room.ledger.over.add(jobs[0])
        assert during.result(SECONDS)
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    until(lambda: listeners(client, *jobs) == 1)
    settle(room)
    announcer.announce(jobs)
    assert after.result(SECONDS)


# ── Forks ────────────────────────────────────────────────────────────────────────────────────────────────

FORKING = """
import math, os, sys, threading, time
from uuid import UUID
import redis
from producer.announce import CHANNEL_PREFIX, Announcer
from producer.ledger.states import State
from producer.waiting import Waiting

def states_of(job_ids):
    return dict.fromkeys(job_ids, State.RUNNING)

def begin(job_id):
    def wait():
        waiting.wait(job_id, until=time.monotonic() + 20)
        woken.append(time.monotonic() < end)
    end, woken = time.monotonic() + 19, []
    thread = threading.Thread(target=wait)
    thread.start()
    while not client.pubsub_numsub(f"{CHANNEL_PREFIX}{job_id}")[0][1]:
        time.sleep(0.01)
    return thread, woken

url, parents, childs = sys.argv[1], *map(UUID, sys.argv[2:])
waiting = Waiting(url, states_of=states_of, over=lambda state: False, look_seconds=math.inf)
client, announcer = redis.Redis.from_url(url), Announcer(url)
thread, woken = begin(parents)
child = os.fork()
if not child:
    thread, woken = begin(childs)
    announcer.announce([childs])
    thread.join()
    waiting.close()
    os._exit(0 if woken == [True] else 1)
assert os.waitpid(child, 0)[1] == 0
assert thread.is_alive()
announcer.announce([parents])
thread.join()
assert woken == [True]
"""


def test_a_forked_child_waits_on_its_own_and_its_parent_goes_on_hearing(valkey: Valkey) -> None:
    jobs = [str(uuid4()) for _ in range(2)]
    subprocess.run([sys.executable, "-c", FORKING, valkey.url, *jobs], cwd=ROOT, check=True, timeout=50)


def looked_at(room: Room, job_id: UUID) -> bool:
    return any(job_id in look for look in room.ledger.looks)


def settle(room: Room) -> None:
    """Wait until the last look is over and no other is due: what wakes from now on is an announcement."""
    quiet: deque[int] = deque(maxlen=30)

    def is_quiet() -> bool:
        quiet.append(len(room.ledger.looks))
        return len(quiet) == quiet.maxlen and quiet[0] == quiet[-1]

    until(is_quiet)


def listeners(client: redis.Redis, *job_ids: UUID) -> int:
    return sum(count for _, count in client.pubsub_numsub(*(f"{CHANNEL_PREFIX}{job_id}" for job_id in job_ids)))


def connections(client: redis.Redis) -> int:
    return len(client.client_list())


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name in ("waiting", "listener")]

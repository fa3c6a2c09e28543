"""Ringing on a real Redis: which jobs share a message, when it leaves, and what a flush and a close wait for."""

from __future__ import annotations

import itertools
import threading
from bisect import bisect
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.transport.redis import PRIORITY_STEPS
from sqlalchemy import event

from producer import Producer, Settings, ring
from producer.ring import JOBS_HEADER, Bell, ahead
from tests.houses import until
from tests.rung import ids, job_ids, rings, rung
from worker import singly

HOUR_SECONDS = 3600.0
# What makes a transaction of statements on a connection in autocommit.
FRAME = ("BEGIN", "COMMIT")


@pytest.fixture
def gathering(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a first ring, the next ones gather for an hour: until somebody flushes."""
    monkeypatch.setattr(ring, "GATHER_SECONDS", HOUR_SECONDS)


@pytest.mark.usefixtures("gathering")
def test_the_first_ring_leaves_at_once_and_the_next_ones_gather(bell: Bell, redis_url: str) -> None:
    first, others = rings(1), rings(5)
    bell.ring(first)
    until(lambda: rung(redis_url))
    for each in others:
        bell.ring([each])
    assert [message.job_ids for message in rung(redis_url)] == [ids(first)]
    assert bell.flush()
    assert [message.job_ids for message in rung(redis_url)] == [ids(first), ids(others)]


def test_what_gathers_leaves_without_anybody_asking_for_it(bell: Bell, redis_url: str) -> None:
    rung_for = rings(20)
    for each in rung_for:
        bell.ring([each])
    until(lambda: job_ids(rung(redis_url)) == ids(rung_for))


@pytest.mark.usefixtures("gathering")
def test_jobs_that_were_accepted_meanwhile_are_rung_a_hundred_at_a_time(bell: Bell, redis_url: str) -> None:
    bell.ring(first := rings(1))
    until(lambda: rung(redis_url))
    for each in (others := rings(250)):
        bell.ring([each])
    assert bell.flush()
    messages = rung(redis_url)
    assert [len(message.job_ids) for message in messages] == [1, 100, 100, 50]
    assert job_ids(messages) == ids(first + others)


def test_a_message_for_one_job_bears_its_id_and_one_for_many_says_how_many(bell: Bell, redis_url: str) -> None:
    (lone,), many = rings(1), rings(7)
    bell.ring_now([lone])
    bell.ring_now(many)
    one, several = rung(redis_url)
    assert (one.task_id, one.headers["traceparent"], one.headers["request_id"]) == (
        str(lone.job_id),
        "trace 0",
        "request 0",
    )
    assert JOBS_HEADER not in one.headers
    assert several.headers[JOBS_HEADER] == 7
    assert several.task_id not in map(str, ids(many))


@pytest.mark.parametrize("priority", range(10))
def test_who_goes_ahead_is_one_step_of_the_broker_s_sooner_and_no_more(priority: int) -> None:
    its_own, its_next = (bisect(PRIORITY_STEPS, each) for each in (priority, ahead(priority)))
    assert its_next == max(1, its_own - 1)


def test_jobs_that_a_child_has_rung_for_singly_go_ahead_of_the_queue_that_their_ring_has_been_through(
    bell: Bell, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(singly, "current_process", lambda: SimpleNamespace(daemon=True))
    bell.ring_now(behind := rings(1))
    many = ids(rings(3))
    assert singly.not_rung_singly(bell, "a", many, {"routing_key": "actions", "priority": 5}) == []
    assert [message.job_ids for message in rung(redis_url)] == [[each] for each in (*many, behind[0].job_id)]


@pytest.mark.usefixtures("gathering")
def test_jobs_of_different_actions_queues_or_priorities_never_share_a_message(bell: Bell, redis_url: str) -> None:
    bell.ring(rings(1, queue="elsewhere"))
    until(lambda: rung(redis_url, "elsewhere"))
    kinds = list(itertools.product(("a", "b"), ("actions", "others"), (4, 5)))  # one list of kombu's for both
    expected = {kind: rings(3, action=kind[0], queue=kind[1], priority=kind[2]) for kind in kinds}
    for each in zip(*expected.values(), strict=True):
        bell.ring(each)
    assert bell.flush()
    messages = [*rung(redis_url), *rung(redis_url, "others")]
    found = {(message.action, message.queue, message.priority): message.job_ids for message in messages}
    assert found == {kind: ids(of_it) for kind, of_it in expected.items()}
    assert len(messages) == len(kinds)


@pytest.mark.usefixtures("gathering")
def test_jobs_of_an_action_that_takes_them_singly_have_a_message_each(bell: Bell, redis_url: str) -> None:
    bell.ring(rung_for := rings(20, together=1))
    assert bell.flush()
    assert [message.job_ids for message in rung(redis_url)] == [[job_id] for job_id in ids(rung_for)]


def test_250_jobs_are_accepted_in_one_statement_and_rung_in_three_messages(
    lone_producer: Producer, settings: Settings
) -> None:
    lone_producer.enqueue("test.add", {"a": 1, "b": 1})  # connects, and reads which actions there are
    statements: list[str] = []
    requests = [{"action": "test.trace", "idempotency_key": f"k{n}"} for n in range(250)]

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    engine = lone_producer._engine  # noqa: SLF001  to see what it sends
    event.listen(engine, "before_cursor_execute", note)
    jobs = lone_producer.enqueue_many(requests)
    event.remove(engine, "before_cursor_execute", note)
    assert lone_producer.flush()
    messages = [message for message in rung(settings.redis_url) if message.action == "test.trace"]
    assert len([statement for statement in statements if not statement.startswith(FRAME)]) == 1
    assert [len(message.job_ids) for message in messages] == [100, 100, 50]
    assert job_ids(messages) == [job.id for job in jobs]


def test_a_sync_action_s_jobs_are_rung_singly_and_an_async_one_s_together(
    lone_producer: Producer, settings: Settings
) -> None:
    lone_producer.enqueue_many([{"action": "test.trace_sync", "idempotency_key": f"k{n}"} for n in range(5)])
    lone_producer.enqueue_many([{"action": "test.trace", "idempotency_key": f"k{n}"} for n in range(5)])
    assert lone_producer.flush()
    sizes = sorted((message.action, len(message.job_ids)) for message in rung(settings.redis_url))
    assert sizes == [("test.trace", 5), *[("test.trace_sync", 1)] * 5]


def test_a_flush_returns_when_all_that_many_threads_asked_for_is_in_redis(bell: Bell, redis_url: str) -> None:
    rung_for = rings(400)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(bell.ring, ([each] for each in rung_for)))
    assert bell.flush()
    assert sorted(job_ids(rung(redis_url))) == sorted(ids(rung_for))


def test_a_flush_waits_as_long_as_rings_go_out(redis_url: str) -> None:
    bell = Bell(redis_url, timeout_seconds=1.0)  # nothing takes so long, but all of them together do
    bell.ring(rung_for := rings(5000, together=1))
    assert bell.flush()
    assert job_ids(rung(redis_url)) == ids(rung_for)
    bell.close()


def test_a_flush_does_not_wait_for_what_is_rung_after_it(bell: Bell, redis_url: str) -> None:
    flushed = threading.Event()

    def go_on() -> None:
        while not flushed.is_set():
            bell.ring(rings(1))

    others = threading.Thread(target=go_on)
    bell.ring(own := rings(1, queue="own"))
    others.start()
    done = bell.flush()
    in_redis = job_ids(rung(redis_url, "own"))
    flushed.set()
    others.join()
    assert done
    assert in_redis == ids(own)

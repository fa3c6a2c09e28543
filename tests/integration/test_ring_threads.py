"""The bell's thread: there while it is needed, begun anew after a close, and no worse for a Redis that is away."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from producer import Producer, Settings, State, ring
from producer.ring import Bell
from tests.houses import until
from tests.rung import ids, job_ids, rings, rung
from worker.dev.servers import Valkey

HOUR_SECONDS = 3600.0
AWAY = ["redis://127.0.0.1:1/0", "redis://127.0.0.1:port/0", "redis://127.0.0.1/0?no_such=1", "amqp://127.0.0.1:1//"]


@pytest.fixture
def others() -> set[threading.Thread]:
    """Bells' threads that are none of the test's."""
    return set(bells())


def bells() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "bell"]


def failures(lines: list[EventDict]) -> list[EventDict]:
    return [line for line in lines if line["event"] == "ring.failed"]


def test_closing_rings_what_is_left_and_ends_the_thread(
    bell: Bell, redis_url: str, others: set[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring, "GATHER_SECONDS", HOUR_SECONDS)
    bell.ring(first := rings(1))
    until(lambda: rung(redis_url))
    bell.ring(left := rings(3))
    bell.close()
    assert job_ids(rung(redis_url)) == ids(first + left)
    assert set(bells()) == others


def test_a_closed_bell_rings_again(bell: Bell, redis_url: str) -> None:
    bell.ring(before := rings(1))
    bell.close()
    bell.close()
    bell.ring(after := rings(1))
    assert bell.flush()
    assert job_ids(rung(redis_url)) == ids(before + after)


def test_a_closed_producer_enqueues_again_and_rings(lone_producer: Producer, settings: Settings) -> None:
    jobs = [lone_producer.enqueue("test.add", {"a": 1, "b": 1})]
    lone_producer.close()
    jobs.append(lone_producer.enqueue("test.add", {"a": 1, "b": 2}))
    assert lone_producer.flush()
    assert job_ids(rung(settings.redis_url)) == [job.id for job in jobs]


def test_an_idle_thread_ends_and_another_begins(
    bell: Bell, redis_url: str, others: set[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring, "IDLE_SECONDS", 0.01)
    bell.ring(rings(1))
    until(lambda: rung(redis_url) and set(bells()) == others)
    bell.ring(rings(1))
    until(lambda: len(rung(redis_url)) == 2)


def test_nothing_to_ring_needs_no_thread_and_no_celery(bell: Bell, others: set[threading.Thread]) -> None:
    bell.ring([])
    assert bell.flush()
    assert set(bells()) == others
    assert bell._app is None  # noqa: SLF001  its property would make one


def test_where_no_thread_can_be_had_rings_are_the_relay_s_until_there_is_one(bell: Bell, redis_url: str) -> None:
    size = threading.stack_size(1 << 46)  # more than any address space has
    try:
        with capture_logs() as lines:
            bell.ring(rings(2))
    finally:
        threading.stack_size(size)
    assert bell.flush(0)
    assert [line["error_type"] for line in failures(lines)] == ["RuntimeError"]
    bell.ring(later := rings(1))
    assert bell.flush()
    assert job_ids(rung(redis_url)) == ids(later)


@pytest.mark.parametrize("url", AWAY)
def test_a_broker_that_is_away_is_said_once_and_rings_are_given_up_meanwhile(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring, "SILENT_SECONDS", HOUR_SECONDS)
    away = Bell(url, timeout_seconds=1.0)
    with capture_logs() as lines:
        for _ in range(3):
            away.ring(rings(1))
            assert away.flush()
        away.close()
    (line,) = failures(lines)
    assert line["log_level"] == "warning"
    assert line["error"]


def test_what_could_not_be_rung_is_returned_to_who_rings_in_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "SILENT_SECONDS", HOUR_SECONDS)
    away, unrung = Bell(AWAY[0], timeout_seconds=1.0), rings(150)
    assert away.ring_now(unrung) == unrung
    assert away.ring_now(unrung) == unrung


def test_a_flush_lasts_no_longer_than_it_is_told_where_redis_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, capture_logs() as lines:
        hanging = Bell(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", timeout_seconds=0.5)
        hanging.ring(rings(300))
        assert not hanging.flush(0)
        assert hanging.flush()
        hanging.close()
    assert [line["error_type"] for line in failures(lines)] == ["OperationalError"]


def test_rings_go_out_again_once_redis_is_back(own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "SILENT_SECONDS", 0.05)
    bell = Bell(own_valkey.url, timeout_seconds=5.0)
    bell.ring(rings(1))  # which may be lost with what Valkey had not written down
    assert bell.flush()
    own_valkey.kill()
    after = rings(1)
    assert bell.ring_now(after) == after
    own_valkey.start()
    until(lambda: bell.ring_now(after) == [])
    assert job_ids(rung(own_valkey.url))[-1:] == ids(after)
    bell.close()


@pytest.mark.parametrize("url", AWAY)
def test_a_job_is_accepted_although_it_cannot_be_rung(lone_producer: Producer, settings: Settings, url: str) -> None:
    unrung = Producer(settings, bell=Bell(url, timeout_seconds=1.0))
    with capture_logs() as lines:
        job = unrung.enqueue("test.add", {"a": 1, "b": 2})
        assert unrung.flush()
    assert lone_producer.job(job.id).state is State.QUEUED
    assert len(failures(lines)) == 1
    unrung.close()


class Waking(threading.Condition):
    """Has somebody come in the moment in which a wait has timed out and not yet returned."""

    def __init__(self, comes: Callable[[], object]) -> None:
        super().__init__()
        self._comes: Callable[[], object] | None = comes

    def wait(self, timeout: float | None = None) -> bool:
        notified = super().wait(timeout)
        if not notified and self._comes is not None:
            comes, self._comes = self._comes, None
            comes()
        return notified


def test_a_ring_that_comes_as_the_thread_falls_asleep_is_rung(
    bell: Bell, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring, "IDLE_SECONDS", 0.01)
    late = rings(1)
    bell._changed = Waking(lambda: bell.ring(late))  # noqa: SLF001  a moment that no test can hit
    bell.ring(first := rings(1))
    until(lambda: job_ids(rung(redis_url)) == ids(first + late))

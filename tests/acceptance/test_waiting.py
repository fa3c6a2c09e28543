"""Waiting for jobs: woken by their end, and sure to learn of it, whatever happens to Redis and Postgres meanwhile."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import redis
from sqlalchemy import Engine, text
from sqlalchemy.engine import Connection

from producer import Job, JobNotFound, JobUnfinished, LedgerUnavailable, Producer, Settings, State
from producer.announce import CHANNEL_PREFIX, Announcer
from producer.ledger import reads
from producer.ledger.engine import open_engine
from tests.gates import Gate
from tests.houses import start_worker, until, worker_environment
from worker.dev.servers import Servers, Valkey

SECONDS = 20.0
# What a wake-up may take on a busy machine; a look never comes.
SOON_SECONDS = 2.0
NEVER = math.inf
OUTLASTED_SECONDS = 8.0

SETTLE = text("UPDATE jobs SET state = :state, finished_at = clock_timestamp() WHERE id = ANY(:ids)")

pytestmark = pytest.mark.usefixtures("lone_producer")  # it publishes the actions


@pytest.fixture
def patient(settings: Settings) -> Iterator[Producer]:
    """A producer that never looks again at a job that it hears of."""
    made = Producer(settings, look_seconds=NEVER)
    yield made
    made.close()


@pytest.fixture
def announcer(settings: Settings) -> Iterator[Announcer]:
    made = Announcer(settings.redis_url)
    yield made
    made.close()


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url) as made:
        yield made


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(200) as made:
        yield made


@dataclass
class Looks:
    """The looks at the ledger: at how many jobs each was, and how many went on at once. Blind ones see no end."""

    jobs: list[int] = field(default_factory=list)
    blind: bool = False
    now: int = 0
    at_once: int = 0

    def states_of(self, connection: Connection, job_ids: Sequence[UUID]) -> dict[UUID, State]:
        self.jobs.append(len(job_ids))
        self.now += 1
        self.at_once = max(self.at_once, self.now)
        states = STATES_OF(connection, job_ids)
        self.now -= 1
        return dict.fromkeys(states, State.RUNNING) if self.blind else states


STATES_OF = reads.states_of


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    made = Looks()
    monkeypatch.setattr(reads, "states_of", made.states_of)
    return made


def ask(producer: Producer, number: int = 1) -> list[Job]:
    return producer.enqueue_many([{"action": "test.add", "params": {"a": 1, "b": n}} for n in range(number)])


def settle(engine: Engine, *jobs: Job, state: State = State.SUCCEEDED) -> None:
    with engine.connect() as connection:
        connection.execute(SETTLE, {"ids": [job.id for job in jobs], "state": state})


def listened_for(client: redis.Redis, *jobs: Job) -> bool:
    return all(count for _, count in client.pubsub_numsub(*(f"{CHANNEL_PREFIX}{job.id}" for job in jobs)))


def timed(wait: Callable[[float], Job]) -> tuple[Job, float]:
    """Wait, and say when it was over."""
    return wait(SECONDS), time.monotonic()


# ── Waking ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.DEAD, State.IN_DOUBT])
def test_a_waiter_wakes_at_once_when_the_end_is_announced_and_needs_no_look(
    patient: Producer,
    engine: Engine,
    client: redis.Redis,
    announcer: Announcer,
    threads: ThreadPoolExecutor,
    looks: Looks,
    state: State,
) -> None:
    looks.blind = True
    (job,) = ask(patient)
    waiter = threads.submit(timed, job.wait)
    until(lambda: listened_for(client, job))
    settle(engine, job, state=state)
    announced = time.monotonic()
    announcer.announce([job.id])
    ended, woken = waiter.result(SECONDS)
    assert ended.state is state
    assert woken - announced < SOON_SECONDS


def test_a_worker_wakes_whoever_waits_for_what_it_has_settled(
    settings: Settings,
    patient: Producer,
    client: redis.Redis,
    threads: ThreadPoolExecutor,
    looks: Looks,
    tmp_path: Path,
) -> None:
    gate = Gate(tmp_path)
    worker = start_worker(settings, tmp_path / "worker.log")
    try:
        looks.blind = True
        jobs = patient.enqueue_many(gate.requests(range(3)))
        waiters = [threads.submit(job.wait, SECONDS) for job in jobs]
        until(lambda: listened_for(client, *jobs))
        gate.open()
        assert [waiter.result(SECONDS).state for waiter in waiters] == [State.SUCCEEDED] * 3
    finally:
        worker.stop()


def test_an_announcement_of_a_job_that_goes_on_is_no_end(
    patient: Producer, engine: Engine, client: redis.Redis, announcer: Announcer, threads: ThreadPoolExecutor
) -> None:
    (job,) = ask(patient)
    waiter = threads.submit(job.wait, SECONDS)
    for _ in range(3):
        until(lambda: listened_for(client, job))
        announcer.announce([job.id])
    until(lambda: listened_for(client, job))
    assert not waiter.done()
    settle(engine, job)
    until(lambda: waiter.done() or announced(announcer, job))
    assert waiter.result().state is State.SUCCEEDED


def test_a_job_that_has_ended_is_read_once_and_waited_for_by_nobody(
    patient: Producer, engine: Engine, looks: Looks
) -> None:
    jobs = ask(patient, 10)
    before = {thread.name for thread in threading.enumerate()}
    settle(engine, *jobs)
    assert {job.refresh().wait(9).state for job in jobs} == {State.SUCCEEDED}
    assert {patient.job(job.id).wait(0).state for job in jobs} == {State.SUCCEEDED}
    assert looks.jobs == []
    assert {thread.name for thread in threading.enumerate()} == before


def test_a_cancel_wakes_whoever_waits_in_another_process(
    patient: Producer,
    settings: Settings,
    client: redis.Redis,
    threads: ThreadPoolExecutor,
    looks: Looks,
) -> None:
    looks.blind = True
    (job,) = ask(patient)
    waiter = threads.submit(job.wait, SECONDS)
    until(lambda: listened_for(client, job))
    cancel = [sys.executable, "-c", "from producer.cli import main; main()", "cancel", str(job.id)]
    subprocess.run(cancel, env=worker_environment(settings), check=True)  # it ends at once, and says so before
    assert waiter.result(SECONDS).state is State.CANCELLED


# ── What it costs ────────────────────────────────────────────────────────────────────────────────────────


def test_two_hundred_waiting_threads_use_one_redis_connection_and_one_of_postgres_at_a_time(
    settings: Settings,
    engine: Engine,
    client: redis.Redis,
    announcer: Announcer,
    threads: ThreadPoolExecutor,
    looks: Looks,
) -> None:
    producer = Producer(settings)
    jobs = ask(producer, 200)
    waiters = [threads.submit(job.wait, SECONDS) for job in jobs]
    until(lambda: listened_for(client, *jobs))
    (subscriber,) = [each for each in client.client_list() if each["sub"] == "200"]
    until(lambda: looks.jobs[-2:] == [200, 200])  # once all have come, every look is at all of them
    assert looks.at_once == 1
    settle(engine, *jobs)
    announcer.announce(job.id for job in jobs)
    assert {waiter.result(SECONDS).state for waiter in waiters} == {State.SUCCEEDED}
    producer.close()
    until(lambda: subscriber["id"] not in [each["id"] for each in client.client_list()])


# ── What is made up for ──────────────────────────────────────────────────────────────────────────────────


def test_a_lost_announcement_costs_a_second_at_most(
    lone_producer: Producer, engine: Engine, client: redis.Redis, threads: ThreadPoolExecutor
) -> None:
    (job,) = ask(lone_producer)
    waiter = threads.submit(timed, job.wait)
    until(lambda: listened_for(client, job))
    settle(engine, job)
    ended = time.monotonic()
    assert waiter.result(SECONDS)[1] - ended < 1.0 + SOON_SECONDS


@pytest.mark.parametrize("broker", ["amqp://guest@127.0.0.1:1//", "redis://127.0.0.1:1/0"])
def test_where_no_redis_can_be_asked_the_end_is_seen_all_the_same(
    settings: Settings, engine: Engine, threads: ThreadPoolExecutor, looks: Looks, broker: str
) -> None:
    producer = Producer(Settings(database_url=settings.database_url, redis_url=broker), look_seconds=NEVER)
    (job,) = ask(producer)
    waiter = threads.submit(timed, job.wait)
    until(lambda: len(looks.jobs) > 3)
    settle(engine, job)
    ended = time.monotonic()
    assert waiter.result(SECONDS)[1] - ended < 0.25 + SOON_SECONDS
    producer.close()


def test_a_redis_that_is_killed_and_restarted_during_a_wait_wakes_the_waiter_in_the_end(
    settings: Settings, engine: Engine, threads: ThreadPoolExecutor, looks: Looks, tmp_path: Path
) -> None:
    with Valkey(tmp_path) as valkey:
        own = Settings(database_url=settings.database_url, redis_url=valkey.url)
        producer, announcer = Producer(own, look_seconds=NEVER), Announcer(own.redis_url)
        (job,) = ask(producer)
        with redis.Redis.from_url(own.redis_url) as client:
            waiter = threads.submit(job.wait, SECONDS)
            until(lambda: listened_for(client, job))
            valkey.kill()
            seen = len(looks.jobs)
            until(lambda: len(looks.jobs) > seen + 3)
            assert not waiter.done()
            valkey.start()
            looks.blind = True
            until(lambda: listened_for(client, job))
        settle(engine, job)
        announcer.announce([job.id])
        assert waiter.result(SECONDS).state is State.SUCCEEDED
        producer.close()
        announcer.close()


def test_connections_to_postgres_that_die_during_a_wait_are_replaced(
    lone_producer: Producer, engine: Engine, threads: ThreadPoolExecutor, looks: Looks
) -> None:
    (job,) = ask(lone_producer)
    waiter = threads.submit(job.wait, SECONDS)
    until(lambda: looks.jobs)
    cut(engine)
    seen = len(looks.jobs)
    until(lambda: len(looks.jobs) > seen)
    settle(engine, job)
    assert waiter.result(SECONDS).state is State.SUCCEEDED


# ── How it ends otherwise ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("timeout", [0.0, 0.05])
def test_a_wait_that_was_too_short_says_so_and_the_job_goes_on(lone_producer: Producer, timeout: float) -> None:
    (job,) = ask(lone_producer)
    with pytest.raises(JobUnfinished, match=f"is queued after {timeout} s; it goes on"):
        job.wait(timeout)


def test_a_job_that_is_not_there_is_not_waited_for(lone_producer: Producer) -> None:
    with pytest.raises(JobNotFound):
        Job(lone_producer, uuid4()).wait(SECONDS)


def test_a_ledger_that_goes_away_during_a_wait_is_a_typed_error_for_everybody_who_waits(
    lone_producer: Producer,
    dev_servers: Servers,
    settings: Settings,
    client: redis.Redis,
    threads: ThreadPoolExecutor,
) -> None:
    jobs = ask(lone_producer, 3)
    # An outage is outlasted while the wait's own time goes on, so that the error comes at its end.
    waiters: list[Future[Job]] = [threads.submit(job.wait, OUTLASTED_SECONDS) for job in jobs]
    until(lambda: listened_for(client, *jobs))
    name = settings.database_url.rsplit("/", 1)[1]
    administration = open_engine(dev_servers.database_url, connections=1, name="tests")
    with administration.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
    cut(administration, name)
    administration.dispose()
    for waiter in waiters:
        with pytest.raises(LedgerUnavailable):
            waiter.result(SECONDS)


def test_a_producer_that_is_closed_meanwhile_leaves_the_waiters_waiting(
    patient: Producer,
    engine: Engine,
    client: redis.Redis,
    announcer: Announcer,
    threads: ThreadPoolExecutor,
    looks: Looks,
) -> None:
    looks.blind = True
    (job,) = ask(patient)
    waiter = threads.submit(job.wait, SECONDS)
    until(lambda: listened_for(client, job))
    patient.close()
    settle(engine, job)
    announcer.announce([job.id])
    assert waiter.result(SECONDS).state is State.SUCCEEDED


def announced(announcer: Announcer, job: Job) -> bool:
    announcer.announce([job.id])
    return False


def cut(engine: Engine, name: str | None = None) -> None:
    """End all of the producers' connections to a database, by default the one that `engine` is connected to."""
    kill = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name = 'surefoot-producer' AND datname = coalesce(:name, current_database())
    """
    with engine.connect() as connection:
        connection.execute(text(kill), {"name": name})

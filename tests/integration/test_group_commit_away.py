"""Group commit while Postgres ends connections, stops, or may not be written to: nothing is lost or written twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from producer import Producer, Settings, State
from producer.ledger.engine import open_engine
from producer.ledger.migrate import migrate
from tests.houses import until
from tests.integration.test_group_commit_refusals import locked
from tests.integration.writers import SUCCEEDED, WORKER, Hands, enqueued, hands, history, running
from tests.loops import on_a_loop
from worker import group_commit
from worker.dev.servers import Postgres
from worker.group_commit import AWAY_PAUSES

MANY = 50
# Outcomes take their time as long as there is something in `slow`: in the statement, before its commit.
SLOW_OUTCOMES = """
CREATE TABLE slow AS SELECT 1;
CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN IF EXISTS (SELECT FROM slow) THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END';
CREATE TRIGGER take_time BEFORE UPDATE ON jobs FOR EACH ROW WHEN (NEW.state = 'succeeded') EXECUTE FUNCTION take_time();
"""
WAITS = "SELECT wait_event FROM pg_stat_activity WHERE application_name = :worker"
END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :worker"


@pytest.fixture
def server(folder: Path) -> Iterator[Postgres]:
    """A Postgres of this test's own, to be stopped and started."""
    with Postgres(folder) as running_server:
        yield running_server


@pytest.fixture
def settings(server: Postgres, redis_url: str) -> Settings:
    engine = open_engine(server.url, connections=1, name="tests")
    migrate(engine)
    engine.dispose()
    return Settings(database_url=server.url, redis_url=redis_url)


@pytest.fixture
def worker(settings: Settings) -> Iterator[Hands]:
    made = open_engine(settings.database_url, connections=1, name=WORKER)
    yield hands(made)
    made.dispose()


async def worker_waits_for(engine: Engine, event: str) -> None:
    """Wait until the worker's statement waits for that."""
    with engine.connect() as connection:
        await asyncio.to_thread(until, lambda: event in connection.execute(text(WAITS), {"worker": WORKER}).scalars())


def end_connections(engine: Engine) -> int:
    """End the worker's connections, as an operator or a failover would; return how many there were."""
    with engine.connect() as connection:
        return len(connection.execute(text(END), {"worker": WORKER}).all())


def administer(engine: Engine, *statements: str) -> None:
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def pauses(logs: Iterable[Any]) -> list[float]:
    """How long the writer waited before each further try."""
    return [line["pause_seconds"] for line in logs if line["event"] == "ledger.unreachable"]


@on_a_loop
async def test_steps_whose_connection_ended_before_their_commit_are_repeated(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    fresh, *jobs = enqueued(lone_producer, 1 + MANY)
    attempts = running(engine, jobs)
    administer(engine, *filter(str.strip, SLOW_OUTCOMES.split(";\n")))
    _, *tasks = await worker.begun(worker.claim(fresh), *map(worker.settle, attempts))
    await worker_waits_for(engine, "PgSleep")
    administer(engine, "DELETE FROM slow")
    assert end_connections(engine) == 1
    assert await asyncio.gather(*tasks) == ["settled"] * MANY
    assert worker.statements.rows("settle") == [MANY, MANY]
    assert all(history(job) == SUCCEEDED for job in jobs)


@on_a_loop
async def test_outcomes_whose_connection_ended_after_their_commit_are_answered_as_repeated(
    engine: Engine, server: Postgres, lone_producer: Producer, worker: Hands
) -> None:
    fresh, *jobs = enqueued(lone_producer, 1 + MANY)
    attempts = running(engine, jobs)
    # What is committed waits for a standby that does not exist, and so does the answer.
    administer(engine, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    engine.dispose()
    server.stop()
    server.start()
    _, *tasks = await worker.begun(worker.claim(fresh), *map(worker.settle, attempts))
    await worker_waits_for(engine, "SyncRep")
    assert end_connections(engine) == 1
    administer(engine, "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
    assert await asyncio.gather(*tasks) == ["repeated"] * MANY
    assert set(worker.statements.rows("settle")) == {MANY}
    assert all(history(job) == SUCCEEDED for job in jobs)


@on_a_loop
async def test_a_row_whose_answer_a_busy_loop_has_not_heard_is_not_written_again_when_its_neighbour_s_connection_ends(
    engine: Engine, lone_producer: Producer, worker: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "COLLIDED_LOCK_MILLISECONDS", 60_000)
    fresh, *jobs = enqueued(lone_producer, 3)
    attempts = running(engine, jobs)
    with locked(engine, jobs[1]):
        _, *tasks = await worker.begun(worker.claim(fresh), *map(worker.settle, attempts))
        await asyncio.sleep(0)  # they are handed over, and from here on the loop does nothing else
        until(lambda: worker.statements.rows("settle") == [2, 1, 1])
        assert end_connections(engine) == 1
    until(lambda: [job.refresh().state for job in jobs] == [State.SUCCEEDED] * 2)
    assert await asyncio.gather(*tasks) == ["settled"] * 2
    assert worker.statements.rows("settle") == [2, 1, 1, 1]


@on_a_loop
async def test_a_connection_that_ended_while_nothing_was_to_be_written_costs_one_more_try(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    first, second = enqueued(lone_producer, 2)
    assert await worker.claim(first) == [first.id]
    assert end_connections(engine) == 1
    with capture_logs() as logs:
        assert await worker.claim(second) == [second.id]
    assert pauses(logs) == [AWAY_PAUSES[0]]
    assert history(second) == ["accepted", "claimed"]


@on_a_loop
async def test_a_stopped_postgres_is_waited_for_with_growing_pauses_and_then_written_to(
    engine: Engine, server: Postgres, lone_producer: Producer, worker: Hands
) -> None:
    jobs = enqueued(lone_producer, 1 + MANY)
    attempts = running(engine, jobs)
    assert await worker.settle(attempts[0]) == "settled"
    server.stop()
    with capture_logs() as logs:
        tasks = [asyncio.create_task(worker.settle(attempt)) for attempt in attempts[1:]]
        await asyncio.to_thread(until, lambda: len(pauses(logs)) > len(AWAY_PAUSES))
        server.start()
        assert await asyncio.gather(*tasks) == ["settled"] * MANY
    assert pauses(logs)[: len(AWAY_PAUSES) + 1] == [*AWAY_PAUSES, AWAY_PAUSES[-1]]
    engine.dispose()
    assert all(history(job) == SUCCEEDED for job in jobs)
    end_connections(engine)
    with capture_logs() as logs:
        assert await worker.settle(attempts[0]) == "repeated"
    assert pauses(logs) == [AWAY_PAUSES[0]]  # not from where it had been


@on_a_loop
async def test_a_step_waits_for_a_stopped_postgres_while_it_has_time_left_and_others_wait_on(
    engine: Engine, server: Postgres, lone_producer: Producer, worker: Hands
) -> None:
    short, long = jobs = enqueued(lone_producer, 2)
    attempts = running(engine, jobs)
    left = [9.0, 9.0, 9.0]
    server.stop()
    with capture_logs() as logs:
        waiting = asyncio.create_task(worker.settle(attempts[1]))
        with pytest.raises(OperationalError):
            await worker.settle(attempts[0], seconds_left=lambda: left.pop() if left else 0.0)
    assert (left, pauses(logs)[:4]) == ([], list(AWAY_PAUSES[:4]))
    assert not waiting.done()
    server.start()
    assert await waiting == "settled"
    engine.dispose()
    assert [job.refresh().state for job in (short, long)] == [State.RUNNING, State.SUCCEEDED]


@on_a_loop
async def test_a_ledger_that_may_not_be_written_to_is_one_that_is_away(
    engine: Engine, lone_producer: Producer, worker: Hands
) -> None:
    first, second = jobs = enqueued(lone_producer, 2)
    attempts = running(engine, jobs)
    assert await worker.settle(attempts[0]) == "settled"
    left = [9.0, 9.0]
    administer(engine, "ALTER DATABASE surefoot SET default_transaction_read_only = on")  # as a standby is
    assert end_connections(engine) == 1
    waiting = asyncio.create_task(worker.settle(attempts[1]))
    with pytest.raises(OperationalError):
        await worker.settle(attempts[1], seconds_left=lambda: left.pop() if left else 0.0)
    administer(engine, "ALTER DATABASE surefoot RESET default_transaction_read_only")
    assert await waiting == "settled"
    assert [history(job) for job in (first, second)] == [SUCCEEDED, SUCCEEDED]

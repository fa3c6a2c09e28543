"""Ticks in the ledger: each makes one job, whoever ticks, however many do, and wherever one of them ends."""

from __future__ import annotations

import math
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from producer import Producer, Settings
from producer.ledger.engine import in_transaction, open_engine
from producer.ticks import spelled
from tests.houses import until
from tests.integration.ticking import EVERY, INTERVAL, PARAMS, add, jobs_made, keys_made, make_due, tick
from worker.schedule import OTHERS_SECONDS, Ticker

WORKERS = 4
# Has whoever writes to a table wait for the one who holds the lock.
STOPS = (
    """
    CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$
    """,
    "CREATE TRIGGER wait_here AFTER INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION wait_here()",
)
BLOCKED = "SELECT pid FROM pg_stat_activity WHERE application_name = 'blocked' AND wait_event_type = 'Lock'"


def test_a_due_tick_is_one_job_that_says_which_schedule_and_tick_it_is(engine: Engine, lone_producer: Producer) -> None:
    add(lone_producer, "hourly", agent_id="planner", priority=2, queue="slow")
    at = make_due(engine, "hourly")
    tick(engine)
    (job,) = jobs_made(engine)
    assert (job.key, job.state, job.params) == (f"schedule:hourly:{spelled(at)}", "queued", PARAMS)
    assert (job.request_id, job.reasoning) == (job.key, f"schedule hourly: every {EVERY} s")
    assert (job.input, job.agent_id) == ({"schedule": "hourly", "tick": spelled(at)}, "planner")
    assert (job.priority, job.queue) == (2, "slow")
    schedule = lone_producer.schedules.get("hourly")
    assert (schedule.last_tick, schedule.next_tick, schedule.last_error) == (at, at + INTERVAL, None)
    assert lone_producer.job(str(schedule.last_job_id)).record.idempotency_key == job.key


def test_a_tick_says_how_long_it_is_until_the_next(engine: Engine, lone_producer: Producer) -> None:
    assert tick(engine) == math.inf
    add(lone_producer, "hourly")
    assert 0 < tick(engine) <= EVERY
    make_due(engine, "hourly", late=200)
    lone_producer.schedules.remove("hourly")
    add(lone_producer, "all", missed="all")
    make_due(engine, "all", late=200)
    assert tick(engine) == 0.0
    assert len(jobs_made(engine)) == 100
    assert tick(engine) == 0.0
    assert 0 < tick(engine) <= EVERY
    assert len(jobs_made(engine)) == 201


def test_workers_that_tick_at_once_make_each_job_once(
    engine: Engine, settings: Settings, lone_producer: Producer
) -> None:
    names = [f"s{n}" for n in range(30)]
    for name in names:
        add(lone_producer, name, missed="all")
        make_due(engine, name, late=5)
    together = threading.Barrier(WORKERS)

    def work(number: int) -> None:
        own = open_engine(settings.database_url, connections=1, name=f"worker {number}")
        with own.connect() as connection:
            together.wait()
            ticker = Ticker(queue="actions")
            while ticker.tick(connection) <= OTHERS_SECONDS:
                pass
        own.dispose()

    with ThreadPoolExecutor(WORKERS) as workers:
        list(workers.map(work, range(WORKERS)))
    made = Counter(key.split(":")[1] for key in keys_made(engine))
    assert made == dict.fromkeys(names, 6)


@pytest.mark.parametrize(("missed", "jobs"), [("skip", 0), ("latest", 1), ("all", 6)])
def test_missed_ticks_get_what_the_schedule_says_and_the_log_tells_since_when(
    engine: Engine, lone_producer: Producer, missed: str, jobs: int
) -> None:
    add(lone_producer, "hourly", missed=missed)
    first = make_due(engine, "hourly", late=5)
    with capture_logs() as logs:
        tick(engine)
    last = [f"schedule:hourly:{spelled(first + n * INTERVAL)}" for n in range(6)][6 - jobs :]
    assert keys_made(engine) == last
    told = [line for line in logs if line["event"] == "schedule.missed"]
    assert [(line["since"], line["missed"], line["jobs"]) for line in told] == [(spelled(first), missed, jobs)]
    assert lone_producer.schedules.get("hourly").next_tick == first + 6 * INTERVAL


def test_a_paused_schedule_makes_no_job_and_misses_none_when_it_goes_on(
    engine: Engine, lone_producer: Producer
) -> None:
    add(lone_producer, "hourly", missed="all")
    make_due(engine, "hourly", late=10)
    lone_producer.schedules.pause("hourly")
    assert tick(engine) == math.inf
    lone_producer.schedules.resume("hourly")
    assert 0 < tick(engine) <= EVERY
    assert jobs_made(engine) == []


def test_a_removed_schedule_leaves_its_jobs(engine: Engine, lone_producer: Producer) -> None:
    add(lone_producer, "hourly")
    make_due(engine, "hourly")
    tick(engine)
    lone_producer.schedules.remove("hourly")
    assert tick(engine) == math.inf
    assert len(jobs_made(engine)) == 1


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        ("UPDATE schedules SET action = 'test.gone' WHERE name = 'bad'", "'test.gone' is not an action"),
        ("UPDATE schedules SET params = '{\"a\": \"x\"}' WHERE name = 'bad'", "params: 'b' is a required property"),
    ],
)
def test_a_schedule_whose_jobs_are_refused_stops_no_other_says_so_once_and_goes_on(
    engine: Engine, lone_producer: Producer, harm: str, says: str
) -> None:
    for name in ("bad", "good"):
        add(lone_producer, name)
        at = make_due(engine, name)
    with engine.connect() as connection:
        connection.execute(text(harm))
    with capture_logs() as logs:
        tick(engine)
        make_due(engine, "bad")
        tick(engine)
    assert keys_made(engine) == [f"schedule:good:{spelled(at)}"]
    bad = lone_producer.schedules.get("bad")
    assert (bad.next_tick, bad.last_tick) == (at + INTERVAL, None)
    assert says in str(bad.last_error)
    refused = [line for line in logs if line["event"] == "schedule.refused"]
    assert [(line["schedule"], line["tick"]) for line in refused] == [("bad", spelled(at))]
    with engine.connect() as connection:
        connection.execute(text("UPDATE schedules SET action = 'test.add', params = '{\"a\": 1, \"b\": 2}'"))
    make_due(engine, "bad")
    tick(engine)
    assert lone_producer.schedules.get("bad").last_error is None
    assert len(jobs_made(engine)) == 2


def test_a_schedule_that_this_machine_cannot_read_is_left_to_others_and_stops_none(
    engine: Engine, lone_producer: Producer
) -> None:
    for name in ("bad", "good"):
        add(lone_producer, name)
        make_due(engine, name, late=1)
    with engine.connect() as connection:
        connection.execute(
            text("UPDATE schedules SET cron = '* * * * *', every = NULL, zone = 'Mars/Olympus' WHERE name = 'bad'")
        )
    ticker = Ticker(queue="actions")
    with capture_logs() as logs:
        assert tick(engine, ticker) > OTHERS_SECONDS
        assert tick(engine, ticker) > OTHERS_SECONDS  # it does not keep this worker awake
    assert [line["schedule"] for line in logs if line["event"] == "schedule.set_aside"] == ["bad"]
    assert {key.split(":")[1] for key in keys_made(engine)} == {"good"}
    with engine.connect() as connection:
        connection.execute(text("UPDATE schedules SET zone = 'UTC' WHERE name = 'bad'"))
    tick(engine)
    assert {key.split(":")[1] for key in keys_made(engine)} == {"bad", "good"}


def test_a_tick_whose_key_somebody_used_for_something_else_says_so_and_is_over(
    engine: Engine, lone_producer: Producer
) -> None:
    add(lone_producer, "hourly")
    at = make_due(engine, "hourly")
    job = lone_producer.enqueue("test.add", {"a": 9, "b": 9}, idempotency_key=f"schedule:hourly:{spelled(at)}")
    tick(engine)
    assert f"already stands for another request, {job.id}" in str(lone_producer.schedules.get("hourly").last_error)
    assert lone_producer.schedules.get("hourly").next_tick == at + INTERVAL


@pytest.mark.parametrize("table", ["jobs", "schedules"])
def test_a_worker_cut_off_before_its_commit_leaves_the_tick_to_the_others(
    engine: Engine, settings: Settings, lone_producer: Producer, table: str
) -> None:
    add(lone_producer, "hourly")
    at = make_due(engine, "hourly")
    own = open_engine(settings.database_url, connections=1, name="blocked")
    with engine.connect() as gate, ThreadPoolExecutor(1) as workers:
        for statement in STOPS:
            gate.exec_driver_sql(statement.format(table=table))
        gate.exec_driver_sql("SELECT pg_advisory_lock(1)")
        ticking = workers.submit(tick, own)
        pid = until(lambda: gate.execute(text(BLOCKED)).scalar())
        gate.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        with pytest.raises(OperationalError):
            ticking.result(20)
        gate.exec_driver_sql("SELECT pg_advisory_unlock(1)")
    own.dispose()
    assert jobs_made(engine) == []
    assert lone_producer.schedules.get("hourly").next_tick == at
    tick(engine)
    assert keys_made(engine) == [f"schedule:hourly:{spelled(at)}"]


def test_a_tick_whose_key_is_locked_costs_the_other_schedules_nothing(engine: Engine, lone_producer: Producer) -> None:
    for name in ("locked", "free"):
        add(lone_producer, name)
        at = make_due(engine, name)

    def tick_beside(connection: object) -> None:
        key = f"schedule:locked:{spelled(at)}"
        lone_producer.enqueue("test.add", PARAMS, idempotency_key=key, connection=connection)  # type: ignore[arg-type]
        with engine.connect() as own, capture_logs() as logs:
            own.execute(text("SET lock_timeout = '100ms'"))
            Ticker(queue="actions").tick(own)
            own.execute(text("RESET lock_timeout"))
        assert [line["schedule"] for line in logs if line["event"] == "schedule.set_aside"] == ["locked"]
        assert keys_made(engine) == [f"schedule:free:{spelled(at)}"]

    in_transaction(engine, tick_beside)
    assert lone_producer.schedules.get("locked").next_tick == at
    tick(engine)
    assert lone_producer.schedules.get("locked").last_tick == at
    assert keys_made(engine) == [f"schedule:{name}:{spelled(at)}" for name in ("free", "locked")]


def test_a_job_of_a_tick_is_due_for_ringing_at_once(engine: Engine, lone_producer: Producer) -> None:
    add(lone_producer, "hourly")
    make_due(engine, "hourly")
    tick(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT ring_at <= due_at FROM jobs")).scalar_one()
        assert connection.execute(text("SELECT tenant FROM jobs")).scalar_one() == "default"


def test_any_worker_ticks_the_schedules_of_every_tenant(
    engine: Engine, settings: Settings, lone_producer: Producer
) -> None:
    assert lone_producer.actions()
    other = Producer(Settings(database_url=settings.database_url, redis_url=settings.redis_url, tenant="other"))
    add(other, "hourly")
    at = make_due(engine, "hourly")
    tick(engine)
    job = other.find("test.add", f"schedule:hourly:{spelled(at.astimezone(UTC))}")
    assert job is not None
    assert lone_producer.schedules.list() == []
    other.close()

"""Jobs that wait for a place, and that nobody will ring: found by the relay of any worker, and woken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from producer import Producer, State
from producer.ring import Ring
from tasks import ActionSpec
from tests.houses import until
from tests.integration.limited import Clock, job, jobs, kept, limited, workers
from tests.integration.test_statements import settlement, writer_of
from tests.loops import on_a_loop
from worker.dev.servers import Valkey
from worker.forgotten import BATCH, Forgotten

NARROW = limited("test.narrow", fleet_concurrency=2)
HERE = limited("test.narrow", max_concurrency=3)
BOTH = limited("test.narrow", fleet_concurrency=3, max_concurrency=1)
DUE = text("SELECT id FROM jobs WHERE due_at <= clock_timestamp() ORDER BY id")

Held = Callable[[int], list[UUID]]


@pytest.fixture
def held(engine: Engine, lone_producer: Producer) -> Held:
    """Have so many jobs wait for a place for five minutes; nobody but the ledger knows of them."""

    def hold(count: int) -> list[UUID]:
        one = {"action": "test.narrow", "params": {"log": "none"}}
        made = [
            job.id for job in lone_producer.enqueue_many([{**one, "idempotency_key": f"{n}"} for n in range(count)])
        ]
        writer = writer_of(engine)
        attempts = writer.claim("test.narrow", 1, made)
        for each in attempts:
            waiting = {"waiting_for": "concurrency", "delay": 300.0, "was": State.CLAIMED, "kind": "held"}
            assert writer.settle([settlement(each, State.WAITING, **waiting)]) == {each.job_id: "settled"}
        return sorted(made)

    return hold


def forgotten(url: str, spec: ActionSpec, *, here: int = 0, rung: list[Ring] | None = None) -> Forgotten:
    return Forgotten(url, [spec], places_here=lambda _: here, ring=(list[Ring]() if rung is None else rung).extend)


def look(engine: Engine, looking: Forgotten) -> int:
    with engine.connect() as connection:
        return looking.look(connection)


def due(engine: Engine) -> list[UUID]:
    with engine.connect() as connection:
        return list(connection.execute(DUE).scalars())


def test_where_the_line_was_lost_those_who_stood_in_it_are_woken_to_stand_in_it_again(
    engine: Engine, redis_url: str, held: Held
) -> None:
    waiting = held(BATCH + 20)
    assert look(engine, forgotten(redis_url, NARROW)) == BATCH
    assert due(engine) == waiting[:BATCH]
    assert look(engine, forgotten(redis_url, NARROW)) == 20
    assert look(engine, forgotten(redis_url, NARROW)) == 0


@on_a_loop
async def test_as_long_as_no_place_is_free_nobody_is_woken(engine: Engine, redis_url: str, held: Held) -> None:
    held(1)
    async with workers(redis_url, "a") as (a,):
        for each in jobs(2):
            assert await a.admits(NARROW, each)
        assert look(engine, forgotten(redis_url, NARROW)) == 0
        await a.limits.release(NARROW, job(1).job_id)
        assert look(engine, forgotten(redis_url, NARROW)) == 1


@on_a_loop
async def test_places_that_were_a_dead_worker_s_go_to_those_in_line(engine: Engine, redis_url: str, held: Held) -> None:
    held(1)
    rung: list[Ring] = []
    async with workers(redis_url, "a", lease_seconds=2.0) as (a,):
        for each in jobs(2):
            assert await a.admits(NARROW, each)
        waiting = jobs(3, first=3)
        for each in waiting:
            await a.asks(NARROW, each)
        # Nothing of it runs any more, and the leases of those that did will be over.
        found = until(lambda: (look(engine, forgotten(redis_url, NARROW, rung=rung)), rung)[1])
    assert [ring.job_id for ring in found] == [ring.job_id for ring in waiting[:2]]
    assert due(engine) == []  # those that the ledger alone knows of come after those in line
    assert kept(redis_url, NARROW)["line"] == 1


def test_where_each_process_has_a_limit_of_its_own_as_many_are_woken_as_there_are_places(
    engine: Engine, redis_url: str, held: Held
) -> None:
    waiting = held(5)
    assert look(engine, forgotten(redis_url, BOTH)) == 3
    assert due(engine) == waiting[:3]


def test_where_this_process_has_places_left_a_line_is_woken_for_them(
    engine: Engine, redis_url: str, held: Held
) -> None:
    waiting = held(5)
    assert look(engine, forgotten(redis_url, HERE, here=0)) == 0
    assert look(engine, forgotten(redis_url, HERE, here=2)) == 5
    assert due(engine) == waiting
    assert kept(redis_url, HERE) == {}


def test_jobs_of_another_version_are_woken_by_workers_that_can_perform_them(
    engine: Engine, redis_url: str, held: Held
) -> None:
    held(1)
    assert look(engine, forgotten(redis_url, replace(NARROW, version=2))) == 0
    assert look(engine, forgotten(redis_url, NARROW)) == 1


@on_a_loop
async def test_a_process_has_places_left_where_nobody_waits_for_them_and_it_performs_jobs_itself() -> None:
    clock = Clock()
    async with workers("redis://127.0.0.1:1/0", "a", clock=clock) as (a,):
        assert a.limits.places_left(HERE) == 0  # it performs what Celery hands it
        a.limits.serve_here(lambda _: None)
        assert a.limits.places_left(HERE) == 3
        for n, each in enumerate(jobs(3), 1):
            assert await a.admits(HERE, each)
            assert a.limits.places_left(HERE) == 3 - n
        await a.asks(HERE, job(4))
        assert a.limits.places_left(HERE) == 0  # what gets free is somebody's
        await a.limits.release(HERE, job(1).job_id)
        assert a.limits.places_left(HERE) == 1


def test_a_redis_that_is_away_wakes_nobody_and_is_no_error(engine: Engine, own_valkey: Valkey, held: Held) -> None:
    held(1)
    looking = forgotten(own_valkey.url, NARROW)
    own_valkey.stop()
    assert [look(engine, looking) for _ in range(3)] == [0, 0, 0]
    assert [look(engine, forgotten("amqp://guest@127.0.0.1:1//", NARROW))] == [0]

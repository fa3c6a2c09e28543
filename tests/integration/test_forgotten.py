"""The line for a fleet's places and the ledger: where they do not agree, the relay of some worker sees to it."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest
import redis
from sqlalchemy import Engine, text

from producer import Producer, State
from producer.ring import Ring
from tasks import ActionSpec
from tests.houses import until
from tests.integration.limited import Worker, job, jobs, kept, limited, workers
from tests.integration.test_statements import settlement, writer_of
from tests.loops import on_a_loop
from worker.dev.servers import Valkey
from worker.forgotten import BATCH, Forgotten
from worker.limits_in_redis import looked_key_of

NARROW = limited("test.narrow", fleet_concurrency=2)
BOTH = limited("test.narrow", fleet_concurrency=3, max_concurrency=1)
DUE = text("SELECT id FROM jobs WHERE due_at <= clock_timestamp() ORDER BY id")

Held = Callable[[int], list[Ring]]


@pytest.fixture
def held(engine: Engine, lone_producer: Producer) -> Held:
    """Have so many jobs wait for a place for five minutes; nobody but the ledger knows of them."""

    def hold(count: int) -> list[Ring]:
        one = {"action": "test.narrow", "params": {"log": "none"}}
        asked = [{**one, "idempotency_key": f"{n}"} for n in range(count)]
        made = sorted(job.id for job in lone_producer.enqueue_many(asked))
        writer = writer_of(engine)
        waiting = {"waiting_for": "concurrency", "delay": 300.0, "was": State.CLAIMED, "kind": "held"}
        for each in writer.claim("test.narrow", 1, made):
            assert writer.settle([settlement(each, State.WAITING, **waiting)]) == {each.job_id: "settled"}
        return [Ring(each, "test.narrow", "actions", 5, "00-0", "request", 100) for each in made]

    return hold


def look(engine: Engine, url: str, spec: ActionSpec = NARROW, rung: list[Ring] | None = None) -> int:
    """Have the next worker look, whose turn it is."""
    with redis.Redis.from_url(url) as client:
        client.delete(looked_key_of(spec.name))
    with engine.connect() as connection:
        return Forgotten(url, [spec], ring=(list[Ring]() if rung is None else rung).extend).look(connection)


def due(engine: Engine) -> list[UUID]:
    with engine.connect() as connection:
        return list(connection.execute(DUE).scalars())


async def full(worker: Worker) -> None:
    """Have both places be taken, by jobs that nobody else knows."""
    for each in jobs(2):
        assert await worker.admits(NARROW, each)


def test_where_the_line_was_lost_those_who_stood_in_it_are_woken_the_oldest_first(
    engine: Engine, redis_url: str, held: Held
) -> None:
    waiting = held(BATCH + 20)
    assert look(engine, redis_url) == BATCH
    assert due(engine) == [each.job_id for each in waiting[:BATCH]]
    assert look(engine, redis_url) == 20
    assert look(engine, redis_url) == 0


@on_a_loop
async def test_who_stands_in_line_or_has_his_turn_is_left_to_wait_for_it(
    engine: Engine, redis_url: str, held: Held
) -> None:
    turn, *others = held(4)
    async with workers(redis_url, "a") as (a,):
        await full(a)
        for each in (turn, *others):
            await a.asks(NARROW, each)
        await a.limits.release(NARROW, job(1).job_id)
        assert a.rang() == [turn]
        assert look(engine, redis_url) == 0
        assert due(engine) == []


@on_a_loop
async def test_who_was_lost_is_found_though_others_have_lined_up_since(
    engine: Engine, redis_url: str, held: Held
) -> None:
    *lost, late = held(6)
    async with workers(redis_url, "a") as (a,):
        await full(a)
        await a.asks(NARROW, late)
        assert look(engine, redis_url) == len(lost)
        assert due(engine) == [each.job_id for each in lost]


@on_a_loop
async def test_who_is_over_leaves_the_line_and_his_turn_is_the_next_one_s(
    engine: Engine, redis_url: str, held: Held, lone_producer: Producer
) -> None:
    first, second, third, fourth = held(4)
    rung: list[Ring] = []
    async with workers(redis_url, "a") as (a,):
        await full(a)
        for each in (first, second, third, fourth):
            await a.asks(NARROW, each)
        await a.limits.release(NARROW, job(1).job_id)
        assert a.rang() == [first]
        for each in (first, second):  # one that has its turn, and one in line
            assert lone_producer.job(each.job_id).cancel() == "cancelled"
        await a.asks(NARROW, job(5))  # of which this ledger knows nothing: Redis came back with an old copy
        look(engine, redis_url, rung=rung)
        assert rung == [third]
        assert kept(redis_url, NARROW)["line"] == 1
        assert await a.admits(NARROW, third)


@on_a_loop
async def test_places_that_were_a_dead_worker_s_go_to_those_in_line(engine: Engine, redis_url: str, held: Held) -> None:
    waiting = held(3)
    rung: list[Ring] = []
    async with workers(redis_url, "a", lease_seconds=2.0) as (a,):
        await full(a)
        for each in waiting:
            await a.asks(NARROW, each)
        # Nothing of it runs any more, and the leases of those that did will be over.
        assert until(lambda: (look(engine, redis_url, rung=rung), rung)[1]) == waiting[:2]
        assert due(engine) == []


def test_where_each_process_has_a_limit_of_its_own_nobody_is_woken_who_may_stand_in_its_line(
    engine: Engine, redis_url: str, held: Held
) -> None:
    held(3)
    assert look(engine, redis_url, BOTH) == 0


def test_one_worker_of_the_fleet_looks_at_a_time(engine: Engine, redis_url: str, held: Held) -> None:
    held(1)
    assert look(engine, redis_url) == 1
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET due_at = clock_timestamp() + interval '1 h'"))
        assert Forgotten(redis_url, [NARROW], ring=lambda _: None).look(connection) == 0
    assert look(engine, redis_url) == 1


def test_a_redis_that_is_away_or_none_wakes_nobody_and_is_no_error(
    engine: Engine, own_valkey: Valkey, held: Held
) -> None:
    held(1)
    own_valkey.stop()
    with engine.connect() as connection:
        for url in (own_valkey.url, "amqp://guest@127.0.0.1:1//"):
            looking = Forgotten(url, [NARROW], ring=lambda _: None)
            assert [looking.look(connection) for _ in range(2)] == [0, 0]

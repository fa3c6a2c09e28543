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
from tests.integration.limited import Worker, job, jobs, kept, limited, woken, workers
from tests.integration.test_statements import settlement, writer_of
from tests.loops import on_a_loop
from worker import forgotten
from worker.dev.servers import Valkey
from worker.fleet import Script
from worker.forgotten import BATCH, Forgotten
from worker.limits_in_redis import KEYS, WAIT, keys_of, looked_key_of
from worker.seldom_redis import SeldomRedis

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
    ring = (list[Ring]() if rung is None else rung).extend
    with engine.connect() as connection:
        return Forgotten(SeldomRedis(url), [spec], ring=ring).look(connection)


def due(engine: Engine) -> list[UUID]:
    with engine.connect() as connection:
        return list(connection.execute(DUE).scalars())


async def full(worker: Worker) -> None:
    """Have both places be taken, by jobs that nobody else knows."""
    for each in jobs(2):
        assert await worker.admits(NARROW, each)


def test_where_the_line_was_lost_those_who_stood_in_it_do_so_again_and_who_is_next_is_rung(
    engine: Engine, redis_url: str, held: Held
) -> None:
    waiting = held(BATCH + 20)
    rung: list[Ring] = []
    assert look(engine, redis_url, rung=rung) == BATCH
    assert [each.job_id for each in rung] == [each.job_id for each in waiting[:2]]
    assert kept(redis_url, NARROW) == {"places": 2, "line": BATCH - 2, "until": BATCH - 2, "rings": BATCH - 2}
    assert look(engine, redis_url, rung=rung) == 0
    assert due(engine) == []  # all at once, they would come in vain


@on_a_loop
async def test_who_is_in_the_line_again_is_rung_for_as_the_ledger_has_it(
    engine: Engine, redis_url: str, held: Held
) -> None:
    (one,) = held(1)
    rung: list[Ring] = []
    async with workers(redis_url, "a") as (a,):
        await full(a)
        with engine.connect() as connection:
            connection.execute(text("UPDATE jobs SET queue = 'other', priority = 3"))
            trace, request = connection.execute(
                text("SELECT j.traceparent, d.request_id FROM jobs j JOIN decisions d ON d.job_id = j.id")
            ).one()
        assert look(engine, redis_url, rung=rung) == 1
        assert rung == []
        await a.limits.release(NARROW, job(1).job_id)
        expected = Ring(one.job_id, "test.narrow", "other", 3, trace, request, NARROW.ring_size)
        assert a.rang() == [woken(expected)]


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
        assert a.rang() == [woken(turn)]
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
        assert kept(redis_url, NARROW)["line"] == len(lost) + 1
        await a.limits.release(NARROW, job(1).job_id)
        assert [each.job_id for each in a.rang()] == [lost[0].job_id]


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
        assert a.rang() == [woken(first)]
        for each in (first, second):  # one that has its turn, and one in line
            assert lone_producer.job(each.job_id).cancel() == "cancelled"
        await a.asks(NARROW, job(5))  # of which this ledger knows nothing: Redis came back with an old copy
        look(engine, redis_url, rung=rung)
        assert rung == [woken(third)]
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
        assert until(lambda: (look(engine, redis_url, rung=rung), rung)[1]) == [*map(woken, waiting[:2])]
        assert due(engine) == []


def test_whose_turn_came_and_went_is_woken_and_does_not_have_the_next_place_kept_for_him_too(
    engine: Engine, redis_url: str, held: Held
) -> None:
    first, second, third, fourth = (each.job_id for each in held(4))
    rung: list[Ring] = []
    assert look(engine, redis_url, rung=rung) == 4
    later(redis_url)
    look(engine, redis_url, rung=rung)  # another worker's
    look(engine, redis_url, rung=rung)
    assert [each.job_id for each in rung] == [first, second, third, fourth]
    assert due(engine) == [first, second]


def test_in_a_queue_without_workers_everybody_stands_in_line_again_once_and_has_one_turn(
    engine: Engine, redis_url: str, held: Held
) -> None:
    waiting = [each.job_id for each in held(6)]
    rung: list[Ring] = []
    lined_up = []
    for _ in range(4):
        lined_up.append(look(engine, redis_url, rung=rung))
        later(redis_url)
    assert lined_up == [6, 0, 0, 0]
    assert [each.job_id for each in rung] == waiting
    assert due(engine) == waiting


def later(url: str) -> None:
    """Have the time be over that places are kept for."""
    with redis.Redis.from_url(url) as client:
        client.delete(keys_of(NARROW.name)[KEYS.index("places")])


def test_a_redis_that_refuses_some_of_it_has_those_rung_who_have_a_place(
    engine: Engine, redis_url: str, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = held(4)
    first_step = "call('ZADD', LINE, order, job)"
    refusal = f"if job == '{waiting[2].job_id}' then return redis.error_reply('OOM it is full') end"
    refusing = WAIT.text.replace(first_step, f"{refusal} {first_step}")
    monkeypatch.setattr(forgotten, "WAIT", Script(refusing))
    rung: list[Ring] = []
    assert look(engine, redis_url, rung=rung) == 0
    assert [each.job_id for each in rung] == [each.job_id for each in waiting[:2]]
    monkeypatch.undo()
    assert look(engine, redis_url) == 1
    assert due(engine) == []


def test_a_line_that_redis_refuses_is_mended_alone_later_and_keeps_no_other_from_it(
    engine: Engine, redis_url: str, held: Held
) -> None:
    held(1)
    refused = limited("test.broken", fleet_concurrency=1)
    with redis.Redis.from_url(redis_url) as client, engine.connect() as connection:
        client.set(keys_of(refused.name)[KEYS.index("line")], "no line")
        looking = Forgotten(SeldomRedis(redis_url), [refused, NARROW], ring=lambda _: None)
        assert looking.look(connection) == 1


def test_a_line_that_is_lost_twice_is_there_again_and_only_those_are_woken_who_may_have_had_a_turn(
    engine: Engine, redis_url: str, held: Held
) -> None:
    waiting = [each.job_id for each in held(10)]
    assert look(engine, redis_url) == 10
    with redis.Redis.from_url(redis_url) as client:
        client.delete(*keys_of(NARROW.name))
    assert look(engine, redis_url) == 8
    assert due(engine) == waiting[:2]


def test_where_each_process_has_a_limit_of_its_own_nobody_is_lined_up_who_may_stand_in_its_line(
    engine: Engine, redis_url: str, held: Held
) -> None:
    held(3)
    assert look(engine, redis_url, BOTH) == 0


def test_one_worker_of_the_fleet_looks_at_a_time(engine: Engine, redis_url: str, held: Held) -> None:
    held(1)
    one, other = (Forgotten(SeldomRedis(redis_url), [NARROW], ring=lambda _: None) for _ in range(2))
    with engine.connect() as connection:
        assert (one.look(connection), other.look(connection)) == (1, 0)
        with redis.Redis.from_url(redis_url) as client:
            client.flushdb()
        assert other.look(connection) == 1


def test_a_redis_that_is_away_or_none_lines_up_nobody_and_is_no_error(
    engine: Engine, own_valkey: Valkey, held: Held
) -> None:
    held(1)
    own_valkey.stop()
    with engine.connect() as connection:
        for url in (own_valkey.url, "amqp://guest@127.0.0.1:1//"):
            looking = Forgotten(SeldomRedis(url), [NARROW], ring=lambda _: None)
            assert [looking.look(connection) for _ in range(2)] == [0, 0]

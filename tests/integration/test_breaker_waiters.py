"""Who waits for a breaker and how it stands: where the two do not agree, the relay of some worker sees to it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, event, text

from producer import Producer, Settings
from producer.breaker_words import LOOKED, held_key_of, key_of, released_key_of
from tasks import Dependency, declare
from tests.integration.breakers import NAME, THIS_TIME, InRedis
from tests.integration.test_breaker_moves import due, park
from worker.breaker_answers import Seen
from worker.breaker_moves import Moves
from worker.breaker_waiters import Waiters
from worker.dev.servers import Valkey
from worker.seldom_redis import SeldomRedis

MINUTE = 60_000
SLOW = Dependency(name="slow model", per=("tenant",), release_per_second=2)


@pytest.fixture
def place(settings: Settings) -> InRedis:
    return InRedis(redis.Redis.from_url(settings.redis_url), Dependency(name=NAME, release_per_second=2))


@pytest.fixture
def waiting(lone_producer: Producer, engine: Engine) -> list[Any]:
    """Three jobs that wait for the breaker for an hour."""
    return park(lone_producer, engine, 3)


def look(engine: Engine, url: str) -> int:
    """Have the next worker look, whose turn it is."""
    with redis.Redis.from_url(url) as client:
        client.delete(LOOKED)
    with engine.connect() as connection:
        return Waiters(SeldomRedis(url)).look(connection)


def now(place: InRedis) -> int:
    seconds, microseconds = place.client.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


def opened(place: InRedis, at: int) -> None:
    for _ in range(5):
        place.record(at, Seen(epoch=at, bad=1), jitter=0)


def gaps(engine: Engine, ids: Sequence[Any]) -> list[float]:
    return [(later - sooner).total_seconds() for sooner, later in itertools.pairwise(due(engine, ids))]


def test_who_waits_for_what_is_closed_comes_back_at_its_rate_the_oldest_first(
    engine: Engine, settings: Settings, place: InRedis, waiting: list[Any], lone_producer: Producer
) -> None:
    others = park(lone_producer, engine, 1, on="other")
    place.client.hset(key_of("other"), mapping={"state": "open", "until": now(place) + MINUTE})
    before = due(engine, others)
    opened(place, now(place) - MINUTE)
    place.force(now(place) - MINUTE, "closed")  # and who waits came to do so afterwards
    assert look(engine, settings.redis_url) == 3
    assert gaps(engine, waiting) == pytest.approx([0.5, 0.5])
    assert due(engine, others) == before


def test_what_has_just_closed_is_left_to_whoever_lets_go_who_waits(
    engine: Engine, settings: Settings, place: InRedis, waiting: list[Any]
) -> None:
    opened(place, now(place))
    place.force(now(place), "closed")
    assert look(engine, settings.redis_url) == 0
    assert len(waiting) == 3


def test_who_is_let_go_already_is_left_alone_also_where_some_have_gone_since(
    engine: Engine, settings: Settings, place: InRedis, waiting: list[Any], lone_producer: Producer
) -> None:
    place.client.hset(key_of(NAME), mapping={"state": "closed", "gap": 20_000})
    assert look(engine, settings.redis_url) == 3
    before = due(engine, waiting)
    assert look(engine, settings.redis_url) == 0
    assert due(engine, waiting) == before
    lone_producer.cancel(waiting[0])
    assert look(engine, settings.redis_url) == 0
    lone_producer.cancel(waiting[1])
    assert look(engine, settings.redis_url) == 1  # nobody is before it any more
    assert due(engine, waiting)[2] < before[1]


@pytest.mark.parametrize("by", ["a look", "whoever it closed for"])
def test_while_somebody_lets_go_very_many_nobody_else_begins_to(
    engine: Engine,
    settings: Settings,
    place: InRedis,
    waiting: list[Any],
    lone_producer: Producer,
    monkeypatch: pytest.MonkeyPatch,
    by: str,
) -> None:
    monkeypatch.setattr("producer.ledger.breakers.BATCH", 2)
    opened(place, now(place) - 2 * MINUTE)
    place.force(now(place) - MINUTE, "closed")
    asked: list[str] = []
    let_go: list[int] = []

    def is_about_to(*about: Any) -> None:
        # Before the second of its batches, which may take long.
        if "released AS" in about[2]:
            asked.append(about[2])
            if len(asked) == 2:
                let_go.append(look(engine, settings.redis_url))

    event.listen(engine, "before_cursor_execute", is_about_to)
    try:
        if by == "a look":
            assert look(engine, settings.redis_url) == len(waiting)
        else:
            with engine.connect() as connection:
                Moves(SeldomRedis(settings.redis_url)).sweep(connection)
    finally:
        event.remove(engine, "before_cursor_execute", is_about_to)
    assert let_go == [0]
    assert gaps(engine, waiting) == pytest.approx([0.5, 0.5])
    others = park(lone_producer, engine, 2, on="other")
    place.client.set(released_key_of(NAME), 1)
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET due_at = clock_timestamp() + interval '1 hour'"))
    assert look(engine, settings.redis_url) == len(others)  # whom nobody lets go


def test_who_would_all_come_at_once_come_at_its_rate(
    engine: Engine, settings: Settings, place: InRedis, lone_producer: Producer
) -> None:
    crowd = park(lone_producer, engine, 40)
    place.client.hset(key_of(NAME), mapping={"state": "closed", "gap": 1_000})
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET due_at = clock_timestamp() + interval '2 seconds'"))
    assert look(engine, settings.redis_url) == 40
    assert gaps(engine, crowd) == pytest.approx([1.0] * 39)


def test_a_job_that_nobody_takes_up_keeps_nobody_else_from_trying(
    engine: Engine, settings: Settings, place: InRedis, waiting: list[Any]
) -> None:
    opened(place, now(place) - 2 * MINUTE)
    with engine.connect() as connection:
        connection.execute(
            text("UPDATE jobs SET due_at = clock_timestamp() - interval '40 seconds' WHERE id = :id"),
            {"id": waiting[0]},
        )
    before = due(engine, waiting)
    assert look(engine, settings.redis_url) == 1
    assert [later != sooner for later, sooner in zip(due(engine, waiting), before, strict=True)] == [False, True, False]


def test_while_it_asks_for_patience_nobody_is_to_try(
    engine: Engine, settings: Settings, place: InRedis, waiting: list[Any]
) -> None:
    opened(place, now(place) - 2 * MINUTE)
    place.client.set(held_key_of(NAME), "429", px=MINUTE)
    assert look(engine, settings.redis_url) == 0
    place.client.delete(held_key_of(NAME))
    assert look(engine, settings.redis_url) == 1
    assert len(waiting) == 3


def test_another_than_the_one_whose_try_failed_is_due_next(
    engine: Engine, settings: Settings, place: InRedis, waiting: list[Any]
) -> None:
    opened(place, now(place) - 4 * MINUTE)
    place.admit(now(place) - 3 * MINUTE, "t", MINUTE, parks=True, job=str(waiting[0]))
    place.record(now(place) - 3 * MINUTE, Seen(token="t", epoch=THIS_TIME, bad=1), jitter=0, job=str(waiting[0]))
    before = due(engine, waiting)
    assert look(engine, settings.redis_url) == 1
    assert [later != sooner for later, sooner in zip(due(engine, waiting), before, strict=True)] == [False, True, False]


def test_what_one_look_has_no_time_for_is_left_to_the_next(
    engine: Engine, settings: Settings, waiting: list[Any], lone_producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    park(lone_producer, engine, 1, on="other")
    monkeypatch.setattr("worker.breaker_waiters.TOGETHER", 1)
    monkeypatch.setattr("worker.breaker_waiters.LONGEST_LOOK_SECONDS", -1)
    assert look(engine, settings.redis_url) == 0
    monkeypatch.setattr("worker.breaker_waiters.LONGEST_LOOK_SECONDS", 60)
    assert look(engine, settings.redis_url) == len(waiting) + 1


@pytest.mark.parametrize(("name", "per_second"), [("slow model tenant=acme", 2), ("slow models", 10), ("nobody's", 10)])
def test_what_redis_has_forgotten_is_closed_and_has_the_rate_that_the_code_declares(
    engine: Engine,
    settings: Settings,
    lone_producer: Producer,
    name: str,
    per_second: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tasks._dependency._declared", {})
    declare(SLOW)
    waiting = park(lone_producer, engine, 3, on=name)
    assert look(engine, settings.redis_url) == 3
    assert gaps(engine, waiting) == pytest.approx([1 / per_second] * 2)


def test_while_it_is_open_everybody_waits_and_once_a_call_may_try_the_oldest_is_due(
    engine: Engine, settings: Settings, place: InRedis, waiting: list[Any]
) -> None:
    opened(place, now(place))
    assert look(engine, settings.redis_url) == 0
    place.client.delete(key_of(NAME))
    opened(place, now(place) - 2 * MINUTE)
    before = due(engine, waiting)
    assert look(engine, settings.redis_url) == 1
    assert due(engine, waiting)[0] < before[0]
    assert due(engine, waiting)[1:] == before[1:]
    assert look(engine, settings.redis_url) == 0  # somebody comes


@pytest.mark.parametrize(("lease_ms", "expected"), [(60_000, 0), (-1, 1)])
def test_while_a_call_tries_everybody_waits_and_where_it_died_the_next_tries(
    engine: Engine, settings: Settings, place: InRedis, waiting: list[Any], lease_ms: int, expected: int
) -> None:
    opened(place, now(place) - 2 * MINUTE)
    place.admit(now(place), "t", lease_ms, parks=False)
    assert look(engine, settings.redis_url) == expected
    assert len(waiting) == 3


def test_where_a_try_said_nothing_the_next_one_tries(
    engine: Engine, settings: Settings, place: InRedis, waiting: list[Any]
) -> None:
    opened(place, now(place) - 2 * MINUTE)
    place.admit(now(place), "t", MINUTE, parks=False)
    place.record(now(place), Seen(token="t"), jitter=0)
    assert look(engine, settings.redis_url) == 1
    assert len(waiting) == 3


@pytest.mark.parametrize(("for_ms", "ago", "expected"), [(0, MINUTE, 0), (MINUTE, 0, 0), (MINUTE, 2 * MINUTE, 1)])
def test_an_operator_s_word_holds_as_long_as_it_was_given_for(
    engine: Engine, settings: Settings, place: InRedis, waiting: list[Any], for_ms: int, ago: int, expected: int
) -> None:
    place.force(now(place) - ago, "open", for_ms=for_ms)
    assert look(engine, settings.redis_url) == expected
    assert len(waiting) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [("until", "soon"), ("gap", "0"), ("gap", "nan"), ("state", b"\xff"), ("forced_until", "inf"), ("job", "17")],
)
def test_values_that_are_no_breaker_s_keep_nobody_else_waiting(
    engine: Engine,
    settings: Settings,
    place: InRedis,
    waiting: list[Any],
    lone_producer: Producer,
    field: str,
    value: str | bytes,
) -> None:
    others = park(lone_producer, engine, 2, on="other")
    before = due(engine, waiting)
    opened(place, now(place) - 2 * MINUTE)
    place.client.hset(key_of(NAME), field, value)
    assert look(engine, settings.redis_url) == len(others)
    assert due(engine, waiting) == before


def test_a_key_that_is_no_breaker_at_all_keeps_nobody_else_waiting(
    engine: Engine, settings: Settings, place: InRedis, waiting: list[Any], lone_producer: Producer
) -> None:
    others = park(lone_producer, engine, 2, on="other")
    place.client.set(key_of(NAME), "a text")
    assert look(engine, settings.redis_url) == len(others)
    assert len(waiting) == 3


def test_one_worker_looks_for_all(engine: Engine, settings: Settings, waiting: list[Any]) -> None:
    one, other = Waiters(SeldomRedis(settings.redis_url)), Waiters(SeldomRedis(settings.redis_url))
    with engine.connect() as connection:
        assert (one.look(connection), other.look(connection)) == (len(waiting), 0)


def test_a_redis_that_is_away_is_no_error_and_where_the_broker_is_none_nothing_is_asked(
    engine: Engine, own_valkey: Valkey, waiting: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.seldom_redis.AWAY_SECONDS", 60)
    waiters = Waiters(SeldomRedis(own_valkey.url))
    with engine.connect() as connection:
        assert Waiters(SeldomRedis("amqp://nowhere")).look(connection) == 0
        own_valkey.kill()
        assert waiters.look(connection) == 0
        own_valkey.start()
        assert waiters.look(connection) == 0  # it is left alone for a while
        assert Waiters(SeldomRedis(own_valkey.url)).look(connection) == len(waiting)

"""What operators see of the fleet's breakers and may do to them, and what of it is on record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
import redis

from producer import Producer, Settings
from producer.breaker_words import held_key_of, line_key_of
from producer.breakers import Breakers
from producer.errors import BreakerNotFound, BreakersUnavailable, InvalidRequest
from tasks import Dependency
from tests.houses import until
from tests.integration.breakers import NAME, THIS_TIME, InRedis, processes
from tests.loops import on_a_loop
from worker.breaker_answers import ADMITTED, PROBES, REFUSED, Answer, Seen
from worker.dev.servers import Valkey
from worker.fleet import Fleet
from worker.holds import Holds

NOW = 1_764_000_000_000
MINUTE = 60_000
DAY = 24 * 60 * MINUTE


@pytest.fixture
def breakers(producer: Producer) -> Breakers:
    return producer.breakers


@pytest.fixture
def place(redis_url: str) -> Iterator[InRedis]:
    with redis.Redis.from_url(redis_url) as client:
        yield InRedis(client, Dependency(name=NAME))


@pytest.fixture
def same(settings: Settings) -> Iterator[InRedis]:
    """The breaker of which `breakers` tells."""
    with redis.Redis.from_url(settings.redis_url) as client:
        yield InRedis(client, Dependency(name=NAME))


# ---- an operator's word, on a clock that the test moves --------------------------------------------------------


def test_forced_open_nobody_gets_through_and_its_end_comes_by_itself_with_a_try(place: InRedis) -> None:
    place.force(NOW, "open", for_ms=10 * MINUTE)
    assert place.admit(NOW + 10 * MINUTE - 1, "t", 1_000, parks=False).wait_ms == 1
    assert place.admit(NOW + 10 * MINUTE, "t", 1_000, parks=False).decision == PROBES
    assert [(move.was, move.becomes, move.who) for move in place.moves()] == [
        ("closed", "open", "tests"),
        ("open", "open", "tests"),  # the word is over
        ("open", "half-open", "tests"),
    ]


def test_forced_open_for_good_it_stays_so_until_somebody_says_auto(place: InRedis) -> None:
    place.force(NOW, "open")
    assert place.admit(NOW + 1_000 * MINUTE, "t", 1_000, parks=False).decision == REFUSED
    place.force(NOW + 1_001 * MINUTE, "")
    assert place.admit(NOW + 1_001 * MINUTE, "t", 1_000, parks=False).decision == PROBES


def test_forced_closed_nothing_opens_it_until_its_end_and_then_failures_count_anew(place: InRedis) -> None:
    closed = place.force(NOW, "closed", for_ms=MINUTE)
    for _ in range(50):
        assert place.record(NOW + 1, Seen(epoch=closed.epoch, bad=1), jitter=0).state == "closed"
    after = place.admit(NOW + MINUTE, "t", 1_000, parks=False)
    assert (after.decision, after.failed) == (ADMITTED, 0)
    for _ in range(5):
        last = place.record(NOW + MINUTE, Seen(epoch=after.epoch, bad=1), jitter=0)
    assert last.state == "open"


def test_auto_has_what_opened_by_itself_try_at_once_however_long_the_other_side_asked_to_be_left_alone(
    place: InRedis,
) -> None:
    opened = fail(place, NOW, asked_ms=600 * MINUTE)
    assert place.admit(NOW + 1, "t", 1_000, parks=False).wait_ms == 600 * MINUTE - 1
    assert place.force(NOW + 2, "").state == opened.state == "open"
    assert place.admit(NOW + 2, "t", 1_000, parks=False).decision == PROBES
    place.record(NOW + 2, Seen(token="t", epoch=THIS_TIME, bad=1), jitter=0)  # which did not ask for that again
    assert place.admit(NOW + 2, "t", 1_000, parks=False).wait_ms == 1.5 * MINUTE
    assert [(move.becomes, move.who) for move in place.moves()][1] == ("open", "tests")  # the word is on record


def test_auto_where_there_is_nothing_to_take_back_changes_nothing(place: InRedis) -> None:
    assert place.force(NOW, "").state == "closed"
    fail(place, NOW)
    place.admit(NOW + MINUTE, "t", 1_000, parks=False)
    before = place.moves()
    assert place.force(NOW + MINUTE, "").state == "half-open"
    assert place.moves() == before
    assert (
        place.record(NOW + MINUTE, Seen(token="t", epoch=THIS_TIME, ok=[(0, 1)]), jitter=0).state == "closed"
    )  # still its turn


@pytest.mark.parametrize("word", ["", "closed"])
def test_whoever_says_that_it_may_be_called_ends_a_hold_and_is_on_record_for_that(place: InRedis, word: str) -> None:
    place.client.set(held_key_of(NAME), "429", px=3_600_000)
    place.force(NOW, "open")
    assert place.client.exists(held_key_of(NAME))
    place.force(NOW, "")
    place.client.set(held_key_of(NAME), "429", px=3_600_000)
    place.admit(NOW, "t", 1_000, parks=False)
    place.record(NOW, Seen(token="t", epoch=THIS_TIME, ok=[(0, 1)]), jitter=0)
    place.client.set(line_key_of(NAME), NOW + 600_000)
    before = len(place.moves())
    assert place.force(NOW, word).state == "closed"
    assert not place.client.exists(held_key_of(NAME), line_key_of(NAME))
    assert [(move.was, move.becomes, move.reason) for move in place.moves()[before:]] == [
        ("closed", "closed", "because")
    ]


def fail(place: InRedis, at: int, **more: int) -> Answer:
    for _ in range(4):
        place.record(at, Seen(bad=1, **more), jitter=0)  # type: ignore[arg-type]  # numbers, all of them
    return place.record(at, Seen(bad=1, **more), jitter=0)  # type: ignore[arg-type]  # as above


def test_a_word_without_an_end_outlives_any_pause(place: InRedis) -> None:
    place.force(NOW, "open")
    assert place.client.ttl(f"surefoot:breaker:{NAME}") == -1
    place.force(NOW, "")
    assert int(place.client.ttl(f"surefoot:breaker:{NAME}")) > 0


@pytest.mark.parametrize("days", [0, 30], ids=["for good", "for long"])
def test_a_word_is_listed_for_as_long_as_it_holds_though_nobody_calls_meanwhile(
    same: InRedis, breakers: Breakers, days: int
) -> None:
    now = time.time_ns() // 1_000_000
    same.force(now - 20 * DAY, "open", for_ms=days * DAY)
    fail(replace(same, name="busy"), now)  # by which the list is cleared of those of which there is no word
    assert {record.name: record.forced for record in breakers.list()} == {NAME: "open", "busy": None}


def test_what_fails_while_it_is_forced_closed_does_not_have_the_word_forgotten_sooner(
    same: InRedis, breakers: Breakers
) -> None:
    now = time.time_ns() // 1_000_000
    same.force(now - 20 * DAY, "closed")
    same.record(now - 19 * DAY, Seen(epoch=now, bad=1), jitter=0)
    fail(replace(same, name="busy"), now)
    assert {record.name: record.forced for record in breakers.list()} == {NAME: "closed", "busy": None}


def test_of_what_moved_more_than_a_week_ago_and_is_left_to_itself_nothing_is_kept(
    same: InRedis, breakers: Breakers
) -> None:
    now = time.time_ns() // 1_000_000
    same.force(now - 20 * DAY, "open")
    same.force(now - 20 * DAY, "")
    fail(replace(same, name="busy"), now)
    assert [record.name for record in breakers.list()] == ["busy"]


# ---- as an operator says it ------------------------------------------------------------------------------------


@on_a_loop
async def test_an_operator_s_word_is_every_process_s_and_on_record_with_who_and_why(
    settings: Settings, breakers: Breakers
) -> None:
    async with processes(settings.redis_url, 2) as (one, other):
        await one.succeed()
        await other.succeed()
        record = breakers.force(NAME, "open", reason="they deploy", seconds=600, who="ada", new=True)
        assert (record.state, record.forced, record.who, record.reason) == ("open", "open", "ada", "they deploy")
        assert record.forced_until is not None
        for each in (one, other):
            await each.knows_it_is("open")
        assert breakers.force(NAME, "close", reason="done").forced == "closed"
        for each in (one, other):
            await each.knows_it_is("closed")
        assert breakers.force(NAME, "auto", reason="on its own again").forced is None
    assert [(move.becomes, move.reason) for move in breakers.history(NAME)] == [
        ("closed", "on its own again"),
        ("closed", "done"),
        ("open", "they deploy"),
    ]


@on_a_loop
async def test_the_list_shows_how_each_stands(settings: Settings, breakers: Breakers) -> None:
    async with processes(settings.redis_url, 1, recovery_seconds=60) as (one,):
        for _ in range(7):
            await one.succeed()
        await one.fail(2)
        (record,) = breakers.list()
        assert (record.name, record.state, record.calls, record.failed) == (NAME, "closed", 9, 2)
        assert (record.failures_in_a_row, record.forced, record.held) == (2, None, 0)
        await one.fail(3)
        record = breakers.get(NAME)
        assert (record.state, record.reason, record.who) == ("open", "5 failures in a row", "w0")
        assert record.until is not None
        assert record.since is not None
        assert 59 < (record.until - record.since).total_seconds() <= 60


@on_a_loop
async def test_a_dependency_that_asked_for_patience_is_listed_with_how_long_and_why_and_is_gone_afterwards(
    settings: Settings, breakers: Breakers
) -> None:
    fleet = Fleet(settings.redis_url, on_away=lambda _: None)
    try:
        holds = Holds(fleet)
        await holds.hold("mail", 0.2, why="be quick")
        await holds.hold("http api.example.com", 90, why="429 Too Many Requests")
    finally:
        await fleet.close()
    (record,) = until(lambda: [listed for listed in [breakers.list()] if len(listed) == 1])[0]
    assert (record.name, record.state, record.hold_reason) == (
        "http api.example.com",
        "closed",
        "429 Too Many Requests",
    )
    assert record.hold_seconds is not None
    assert 60 < record.hold_seconds <= 90
    assert record.hold_until is not None
    assert (record.held, record.hold_jobs, record.hold_next_due) == (0, 0, None)
    again = breakers.get("http api.example.com").hold_until
    assert again is not None
    assert abs((again - record.hold_until).total_seconds()) < 0.1
    ended = breakers.force("http api.example.com", "auto", reason="they are back")
    assert (ended.hold_until, ended.hold_seconds, ended.hold_reason) == (None, None, "")


def test_what_is_declared_is_listed_before_anything_happens(lone_producer: Producer) -> None:
    names = {record.name: record.state for record in lone_producer.breakers.list()}
    assert names["shaky"] == "closed"


def test_a_name_of_which_nothing_is_known_is_refused_with_what_was_meant(lone_producer: Producer) -> None:
    with pytest.raises(BreakerNotFound, match="nothing is known of a breaker 'shakey'; did you mean 'shaky'"):
        lone_producer.breakers.force("shakey", "open", reason="because")
    assert lone_producer.breakers.force("new host", "open", reason="because", new=True).state == "open"
    assert lone_producer.breakers.get("new host").state == "open"


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"word": "shut"}, "word"),
        ({"reason": "  "}, "reason"),
        ({"reason": "x" * 5_000}, "reason"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": 10**9}, "seconds"),
        ({"word": "auto", "seconds": 60}, "seconds"),
        ({"who": "a\nb"}, "who"),
        ({"name": "a\nb"}, "name"),
        ({"name": ""}, "name"),
    ],
    ids=lambda each: each if isinstance(each, str) else "-".join(each),
)
def test_what_cannot_be_is_refused_by_field_and_nothing_is_done(
    breakers: Breakers, arguments: dict[str, object], where: str
) -> None:
    asked = {"name": "llm", "word": "open", "reason": "because", "new": True} | arguments
    with pytest.raises(InvalidRequest) as caught:
        breakers.force(**asked)  # type: ignore[arg-type]  # the point
    assert caught.value.where == where
    assert breakers.list() == []


def test_with_redis_away_an_operator_is_told_so(settings: Settings, own_valkey: Valkey) -> None:
    away = own_valkey.url
    own_valkey.kill()
    for url in (away, "amqp://nowhere"):
        with closing(Producer(replace(settings, redis_url=url))) as producer:
            for ask in (
                producer.breakers.list,
                lambda of=producer: of.breakers.get("llm"),
                lambda of=producer: of.breakers.force("llm", "open", reason="because", new=True),
            ):
                with pytest.raises(BreakersUnavailable, match="each worker process breaks by itself"):
                    ask()

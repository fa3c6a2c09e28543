"""What the fleet has been told, in a real Redis: one turn, one claim, one count; and what is left of it without one."""

from __future__ import annotations

import pytest
import redis
from sqlalchemy import Engine

from tests.houses import until
from worker import alert_memory
from worker.alert_looks import Looker
from worker.alert_memory import Memory
from worker.dev.servers import Valkey


@pytest.fixture
def two(redis_url: str) -> tuple[Memory, Memory]:
    return Memory(redis_url, who="one", turn_seconds=30), Memory(redis_url, who="other", turn_seconds=30)


def test_a_turn_is_one_process_s_until_it_gives_it_up(two: tuple[Memory, Memory]) -> None:
    one, other = two
    assert [one.turn(), other.turn(), one.turn()] == [True, False, True]
    other.give_turn()  # it is not its own
    assert other.turn() is False
    one.give_turn()
    assert [other.turn(), one.turn()] == [True, False]


def test_the_turn_of_a_process_that_died_is_over_soon(redis_url: str) -> None:
    assert Memory(redis_url, who="dead", turn_seconds=0.2).turn()
    other = Memory(redis_url, who="other", turn_seconds=30)
    until(other.turn)


def test_of_two_that_claim_the_same_each_thing_is_one_s(two: tuple[Memory, Memory]) -> None:
    one, other = two
    assert one.claim(["a", "b"]) == ["a", "b"]
    assert other.claim(["a", "b", "c"]) == ["c"]
    assert one.claim(["a"]) == []


def test_a_claim_lasts_two_minutes_and_what_was_told_a_day(two: tuple[Memory, Memory], redis_url: str) -> None:
    one, _ = two
    one.claim(["claimed", "told"])
    one.keep(["told"])
    with redis.Redis.from_url(redis_url) as client:
        assert 110 < client.ttl("surefoot:alerts:told:claimed") <= 120
        assert 86_000 < client.ttl("surefoot:alerts:told:told") <= 86_400
        one.forget(["claimed"])
        assert not client.exists("surefoot:alerts:told:claimed")


def test_what_began_is_told_by_one_and_its_end_by_any_other_once(two: tuple[Memory, Memory]) -> None:
    one, other = two
    assert [one.begin("on:late", "then"), other.begin("on:late", "later")] == [True, False]
    assert [other.take("on:late"), one.take("on:late")] == ["then", None]
    assert other.begin("on:late", "again")


def test_the_fleet_counts_together_and_what_is_over_the_limit_is_told_when_the_hour_is_over(
    two: tuple[Memory, Memory], redis_url: str
) -> None:
    one, other = two
    assert [one.count(), other.count(), one.count()] == [1, 2, 3]
    one.add_more("dead")
    other.add_more("dead")
    other.add_more("breaker")
    assert not one.more()
    with redis.Redis.from_url(redis_url) as client:
        client.delete("surefoot:alerts:sent")
    assert one.more() == {"dead": 2, "breaker": 1}
    assert not other.more()


def test_without_redis_a_process_remembers_for_itself_and_says_since_when(
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_memory, "QUIET_SECONDS", 0.05)
    memory = Memory(own_valkey.url, who="one", turn_seconds=0.1)
    assert memory.claim(["before"]) == ["before"]
    own_valkey.kill()
    assert memory.turn() is False  # somebody may still have it by Redis
    assert memory.away_since is not None
    until(lambda: memory.turn() is None)
    assert memory.claim(["before", "a"]) == ["a"]
    assert memory.claim(["a"]) == []
    assert [memory.count(), memory.count()] == [1, 2]
    memory.add_more("dead")
    assert not memory.more()
    own_valkey.start()
    until(memory.turn)
    assert memory.away_since is None


def test_where_there_is_no_redis_the_ledger_says_whose_turn_it_is_until_its_connection_ends(engine: Engine) -> None:
    assert Memory("amqp://host", who="one", turn_seconds=1).turn() is None
    one, other = Looker(1, 1), Looker(1, 1)
    with engine.connect() as mine, engine.connect() as theirs:
        assert [one.lock(mine), one.lock(mine), other.lock(theirs)] == [True, True, False]
        one.unlock(mine)
        assert other.lock(theirs)
        assert not one.lock(mine)
        theirs.invalidate()
        until(lambda: one.lock(mine))

"""Redis as a relay asks it."""

from __future__ import annotations

from typing import Any

from worker.dev.servers import Valkey
from worker.seldom_redis import SeldomRedis


def test_what_redis_refuses_to_one_duty_keeps_no_other_from_asking(redis_url: str) -> None:
    redis = SeldomRedis(redis_url)
    assert redis.ask(lambda client: client.set("surefoot:breakers", "a text")) is True
    assert redis.ask(lambda client: client.zrange("surefoot:breakers", 0, -1)) is None
    assert redis.ask(lambda client: client.get("surefoot:breakers")) == b"a text"


def test_a_redis_that_is_away_is_asked_nothing_for_a_while(own_valkey: Valkey) -> None:
    asked: list[Any] = []

    def question(client: Any) -> Any:
        asked.append(client)
        return client.ping()

    redis = SeldomRedis(own_valkey.url)
    own_valkey.kill()
    assert [redis.ask(question) for _ in range(3)] == [None] * 3
    assert len(asked) == 1

"""What the chaos harness finds in Redis after a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis

from tests.chaos.collect import redis_left
from tests.chaos.evidence import RedisLeft


class Popped(redis.Redis):
    """A Redis of which a list is named, and is gone by the time that one asks what it is."""

    def scan_iter(self, *args: Any, **options: Any) -> Iterator[bytes]:
        yield b"canary.vm:1"
        yield from super().scan_iter(*args, **options)


def test_a_key_that_goes_while_it_is_looked_at_is_not_left(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.rpush("actions", "ring")
        client.set("surefoot:held:llm", "1")
    with Popped.from_url(redis_url) as client:
        found = redis_left(client)
    assert found == RedisLeft(
        queues={"actions": 1}, over={"actions": 0}, unacked=0, keys={"string": ("surefoot:held:llm",)}
    )

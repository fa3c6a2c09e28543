"""Faults of rings: too many, too late, too early, and what is none. They bite once workers have taken them up."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from uuid import uuid4

import redis
from kombu import pools

from producer.ring import Bell, Ring
from tests.chaos.patience import NotReached, until
from tests.chaos.storm.notes import Strike
from tests.chaos.storm.stage import Stage

QUEUE = "actions"
MOST = 20
TIMES = 5
# As long as Redis may be away, and all workers with it, and what waits before these is taken up.
TAKEN_SECONDS = 20.0
RINGABLE = """
SELECT j.id, j.action, j.queue, j.priority, j.traceparent, d.request_id
FROM jobs j JOIN decisions d ON d.job_id = j.id WHERE {which} LIMIT %(most)s
"""
ON_THEIR_WAY = RINGABLE.format(which="j.state IN ('queued', 'claimed', 'running')")
LONG_OVER = RINGABLE.format(which="j.finished_at IS NOT NULL ORDER BY j.accepted_at")
NOT_DUE = RINGABLE.format(which="j.state IN ('queued', 'waiting') ORDER BY j.due_at DESC")
# What a worker says of what it cannot take for a ring.
SAID = (b'"ring.unreadable"', b'"ring.undecodable"', b'"ring.unknown_action"', b"unregistered task")


def twice(stage: Stage, strike: Strike) -> bool | None:
    """Ring for jobs on their way, again and again."""
    return _ring(stage, strike, ON_THEIR_WAY, times=TIMES)


def stale(stage: Stage, strike: Strike) -> bool | None:
    """Ring for jobs that ended long ago."""
    return _ring(stage, strike, LONG_OVER)


def reordered(stage: Stage, strike: Strike) -> bool | None:
    """Ring for jobs that are not due yet, the last first."""
    return _ring(stage, strike, NOT_DUE)


def garbage(stage: Stage, strike: Strike) -> bool | None:
    """Put into the queue what is no ring."""
    heard = [(member.log, member.log.stat().st_size) for member in stage.crew.past if member.lives]
    strike.on(QUEUE)

    def put() -> bool:
        with suppress(redis.RedisError), stage.redis() as client:
            return bool(client.lpush(QUEUE, *_garbage()))
        return False

    _comes(put)

    def said() -> bool:
        return any(words in log.read_bytes()[before:] for log, before in heard for words in SAID)

    return _comes(said)


def _ring(stage: Stage, strike: Strike, query: str, *, times: int = 1) -> bool | None:
    try:
        found = until(lambda: stage.ask(query, {"most": MOST}), seconds=TAKEN_SECONDS, what="such jobs")
    except NotReached:
        return False
    rings = [
        Ring(row["id"], row["action"], row["queue"], row["priority"], row["traceparent"], row["request_id"])
        for row in found
    ]
    bell = Bell(stage.valkey.url, timeout_seconds=3.0)
    strike.on(QUEUE)
    rung = _comes(lambda: len(bell.ring_now(rings * times)) < len(rings) * times)  # not while Redis is away
    bell.close()
    pools.reset()  # Celery keeps its connections otherwise, which would count as somebody's
    names = [str(ring.job_id).encode() for ring in rings]
    return rung and _comes(lambda: not _wait_still(stage, names))


def _wait_still(stage: Stage, names: Sequence[bytes]) -> bool:
    """Whether a ring lies in a queue that is for one of these jobs, or for several of which it is the first."""
    with suppress(redis.RedisError), stage.redis() as client:
        queues = [client.lrange(key, 0, -1) for key in client.scan_iter(f"{QUEUE}*", _type="list")]
        return any(name in ring for queue in queues for ring in queue for name in names)
    return True  # Redis is away, and what it holds by then nobody knows


def _garbage() -> list[bytes]:
    """Return what is no JSON, what is no message, what names no action, and what must not be unpickled."""
    properties = {"delivery_tag": str(uuid4()), "delivery_info": {"routing_key": QUEUE, "exchange": ""}}
    known = {"id": str(uuid4()), "task": "storm.pure", "lang": "py", "argsrepr": "", "kwargsrepr": ""}
    unknown = {"body": "W1tdLCB7fSwge31d", "headers": known | {"task": "storm.nobody"}, "properties": properties}
    pickled = {"body": "gASVBgAAAAAAAABdlIwAlGUu", "headers": known, "properties": properties}
    plain = {"content-type": "application/json", "content-encoding": "utf-8"}
    body = {"properties": properties | {"body_encoding": "base64", "correlation_id": str(uuid4())}}
    return [
        b"\xff\xfe no json",
        b"{}",
        json.dumps(plain | unknown | body).encode(),
        json.dumps(plain | pickled | body | {"content-type": "application/x-python-serialize"}).encode(),
    ]


def _comes(condition: Callable[[], bool]) -> bool:
    try:
        return until(condition, seconds=TAKEN_SECONDS, what="it")
    except NotReached:
        return False


FAULTS: Mapping[str, Callable[[Stage, Strike], bool | None]] = {
    "rings_twice": twice,
    "rings_stale": stale,
    "rings_reordered": reordered,
    "rings_garbage": garbage,
}

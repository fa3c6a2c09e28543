"""When the last job has ended, seen the same way for every peer: in the broker.

With late acknowledgement a message is gone from it when, and only when, all that the peer records of its jobs has been
recorded; so with no message left no job is, however many jobs a message stood for.
"""

from __future__ import annotations

import time

import redis

from tests.benchmarks.clients import Client

# Looking takes a core's time from those who are measured; at this pace, about one percent of it.
LOOK_SECONDS = 0.02
STALLED_SECONDS = 60.0
# The transport keeps what was delivered and not yet acknowledged in this hash.
UNACKED = "unacked"
# It keeps one list for each of these priorities, the first under the queue's own name.
PRIORITY_STEPS = ("", "\x06\x163", "\x06\x166", "\x06\x169")


class Stalled(Exception):
    """A worker stopped working, or did not record what it did: the figures would be worth nothing."""


def until_ended(client: Client) -> float:
    """Wait until everything that was enqueued has ended; return when that was first seen, on `time.perf_counter`.

    Raises:
        Stalled: If nothing ends for a minute.
    """
    reached: float | None = None
    changed, before = time.perf_counter(), -1
    with redis.Redis.from_url(client.stage.redis_url) as broker:
        while True:
            left, now = _messages(broker, client.queue), time.perf_counter()
            if left:
                reached = None
            elif reached is None:
                reached = now
            # Seen twice: a message on its way to a worker is nowhere for a moment.
            elif client.settled():
                return reached
            else:
                reached = None
            if left != before:
                changed, before = now, left
            elif now - changed > STALLED_SECONDS:
                raise Stalled(f"{left} messages are left and nothing has ended for {STALLED_SECONDS:g} s")
            time.sleep(LOOK_SECONDS)


def _messages(broker: redis.Redis, queue: str) -> int:
    """Return how many messages wait in the queue or are not yet acknowledged."""
    pipeline = broker.pipeline(transaction=True)
    for step in PRIORITY_STEPS:
        pipeline.llen(queue + step)
    pipeline.hlen(UNACKED)
    return sum(int(count) for count in pipeline.execute())

"""What should never lie in the queue and some day does: the worker says so in a line and goes on."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator

import pytest
import redis

from tests.houses import House, until

SECONDS = 20.0


@pytest.fixture
def broker(house: House) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(house.settings.redis_url) as client:
        yield client


def message(body: bytes, *, task: str | None = "test.add", content_type: str = "application/json") -> str:
    """A message as kombu's Redis transport writes it, with any body."""
    task_id = str(uuid.uuid4())
    headers = {"lang": "py", "id": task_id, "argsrepr": "", "kwargsrepr": "", "root_id": task_id, "retries": 0}
    properties = {
        "correlation_id": task_id,
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "actions"},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": task_id,
    }
    envelope = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": content_type,
        "headers": headers | ({} if task is None else {"task": task}),
        "properties": properties,
    }
    return json.dumps(envelope)


def body(*args: object) -> bytes:
    return json.dumps([list(args), {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]).encode()


ODD = {
    "unknown action": message(body(str(uuid.uuid4())), task="nobody.knows"),
    "unknown job": message(body(str(uuid.uuid4()))),
    "not a job's id": message(body("'; DROP TABLE jobs; --")),
    "too many arguments": message(body(1, 2, 3)),
    "no arguments": message(body()),
    "not JSON": message(b"{nope"),
    "pickle": message(b"\x80\x04K\x01.", content_type="application/x-python-serialize"),
    "no task": message(body("x"), task=None),
    "an array too deep": message(b"[" * 100_000),
    "half a megabyte": message(body("x" * 500_000)),
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_ring_is_put_aside_and_the_worker_goes_on(house: House, broker: redis.Redis, odd: str) -> None:
    before = house.worker.pid, sorted(child.pid for child in house.worker.children)
    broker.lpush("actions", ODD[odd])
    job = house.producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key=f"after {odd}".replace(" ", "-"))
    assert job.get(SECONDS) == {"total": 3}
    until(lambda: broker.llen("actions") == 0 and broker.hlen("unacked") == 0)
    assert (house.worker.pid, sorted(child.pid for child in house.worker.children)) == before


def test_an_unknown_action_on_the_queue_is_logged_and_its_job_waits_for_a_worker_that_knows_it(house: House) -> None:
    until(lambda: any(line["action"] == "nobody.knows" for line in house.worker.events("ring.unknown_action")))


def test_a_message_that_is_no_envelope_at_all_does_not_end_the_worker(house: House, broker: redis.Redis) -> None:
    broker.lpush("actions", "this is not even JSON")
    broker.lpush("actions", b"\xff\xfe\x00garbage")
    job = house.producer.enqueue("test.add", {"a": 2, "b": 2}, idempotency_key="after-garbage")
    assert job.get(SECONDS) == {"total": 4}
    assert len(house.worker.events("ring.unreadable")) == 2

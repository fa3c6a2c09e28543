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


def changed(**changes: object) -> str:
    """A message with some parts of its envelope replaced; ``...`` leaves a part out."""
    envelope = json.loads(message(body(str(uuid.uuid4())))) | changes
    return json.dumps({name: part for name, part in envelope.items() if part is not ...})


def with_headers(**changes: object) -> str:
    return changed(headers=json.loads(message(body(str(uuid.uuid4()))))["headers"] | changes)


UNREADABLE = {
    "an empty body": changed(body=""),
    "a body that is not base64": changed(body="!!!!"),
    "no body": changed(body=...),
    "a body that is null": changed(body=None),
    "a body of another shape": message(b"{}"),
    "a number for a body": message(b"5"),
    "a body with too little in it": message(b"[[],{}]"),
    "no content type": changed(**{"content-type": ...}),
    "a content type that is null": changed(**{"content-type": None}),
    "a time limit that is none": with_headers(timelimit="x"),
    "a forged count": with_headers(surefoot_jobs=1_000_000),
    "a count that is none": with_headers(surefoot_jobs="many"),
    "no headers": changed(headers=...),
    "no id": with_headers(id=None),
    "no properties": changed(properties=...),
    "an envelope with nothing in it": "{}",
    "an envelope that is a list": "[]",
}


@pytest.mark.parametrize("odd", UNREADABLE)
def test_more_odd_rings_than_the_worker_takes_up_at_once_leave_it_hearing(
    house: House, broker: redis.Redis, odd: str
) -> None:
    for _ in range(3):  # the house's worker takes up two
        broker.lpush("actions", UNREADABLE[odd])
    job = house.producer.enqueue("test.add", {"a": 1, "b": 3}, idempotency_key=f"after {odd}".replace(" ", "-"))
    assert job.get(SECONDS) == {"total": 4}
    assert house.worker.process.poll() is None


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
    until(lambda: len(house.worker.events("ring.unreadable")) >= 2)

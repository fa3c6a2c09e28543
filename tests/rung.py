"""Rings made up for tests, and those that wait in Redis."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID, uuid4

import redis

from producer.ring import Ring

# What a relay asks its ledger for that leaves no job to others, whatever its version.
ANY_VERSION: Mapping[str, Any] = {"actions": [], "versions": [], "theirs": 0.0}
# Kombu keeps four lists for a queue: priorities 0 to 2, 3 to 5, 6 to 8, and 9.
LISTS = ("", "\x06\x163", "\x06\x166", "\x06\x169")


@dataclass(frozen=True, slots=True)
class Message:
    """One ring as it lies in Redis."""

    action: str
    queue: str
    priority: int
    task_id: str
    job_ids: list[UUID]
    headers: dict[str, Any]


def rung(url: str, queue: str = "actions") -> list[Message]:
    """Every message that waits in a queue; those of one priority in the order in which they were sent."""
    with redis.Redis.from_url(url) as client:
        lists = [cast("list[bytes]", client.lrange(queue + suffix, 0, -1)) for suffix in LISTS]
    return [read_message(raw, queue) for sent in lists for raw in reversed(sent)]


def job_ids(messages: Iterable[Message]) -> list[UUID]:
    """Every job that they name, as often as they do."""
    return [job_id for message in messages for job_id in message.job_ids]


def rings(
    count: int, *, action: str = "a", queue: str = "actions", priority: int = 5, together: int = 100
) -> list[Ring]:
    """Rings for jobs that are in no ledger."""
    return [Ring(uuid4(), action, queue, priority, f"trace {n}", f"request {n}", together) for n in range(count)]


def ids(rung_for: Sequence[Ring]) -> list[UUID]:
    return [ring.job_id for ring in rung_for]


def read_message(raw: bytes, queue: str) -> Message:
    """Read one as it lies in Redis; raises ValueError, LookupError or TypeError where it is no ring."""
    sent = json.loads(raw)
    headers, properties = sent["headers"], sent["properties"]
    arguments = json.loads(base64.b64decode(sent["body"]))[0]
    found = [UUID(argument) for argument in arguments]
    return Message(headers["task"], queue, properties["priority"], headers["id"], found, headers)

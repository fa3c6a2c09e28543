"""Asking over HTTP, and reading the answers."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
from sqlalchemy import text

from producer.ledger.engine import open_engine
from producer.ledger.policies import DeclaredPolicy, publish_declared
from tests.houses import House

ADD = {"action": "test.add", "params": {"a": 1, "b": 2}}


def enqueue(client: httpx.Client, body: Any = None, *, key: str | None = None, **query: Any) -> httpx.Response:
    return client.post("/v1/jobs", json=body or ADD, headers={"Idempotency-Key": key or str(uuid4())}, params=query)


def problem(response: httpx.Response) -> tuple[int, str]:
    """An error's status and type."""
    assert response.headers["content-type"] == "application/problem+json"
    said = response.json()
    assert said["status"] == response.status_code
    assert said["title"]
    assert said["detail"]
    return response.status_code, said["type"].removeprefix("/problems/")


def set_state(house: House, job_id: str, state: str, *, doubt: bool = False) -> None:
    with open_engine(house.settings.database_url, connections=1, name="tests").connect() as connection:
        connection.execute(
            text(
                "UPDATE jobs SET state = :state, waiting_for = NULL, maybe_happened = :doubt,"
                " finished_at = CASE WHEN NOT :doubt THEN clock_timestamp() END WHERE id = :id"
            ),
            {"state": state, "doubt": doubt, "id": job_id},
        )


def publish_policy(house: House, name: str, pattern: str) -> None:
    """Have a policy be in force that no code declares any more."""
    gone = DeclaredPolicy(name=name, version=2, pattern=pattern, declared_in="a module of last year")
    with open_engine(house.settings.database_url, connections=1, name="tests").connect() as connection:
        publish_declared(connection, [gone])

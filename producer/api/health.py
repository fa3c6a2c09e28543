"""Whether the API lives, whether it could do something, what Prometheus may know, and what its problems mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from producer.api.access import Admin
from producer.api.document import PROBLEMS
from producer.api.metrics import CONTENT_TYPE
from producer.api.problems import KINDS, Problem
from producer.breakers import BreakerRecord
from producer.broker import bounded_redis, is_redis, redis_client
from producer.client import Producer
from producer.errors import BreakersUnavailable, LedgerUnavailable

router = APIRouter(responses=PROBLEMS, tags=["health"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    """Whether this process answers at all. Asks nobody else."""
    return {"status": "alive"}


@router.get("/readyz")
async def readyz(request: Request, response: Response) -> dict[str, str]:
    """Whether it can accept requests: asks Postgres, and Redis.

    Without Redis it can: what is accepted is rung by the relays later. That is said, and is no reason to stop sending.
    """
    producer: Producer = request.app.state.producer
    ledger = await run_in_threadpool(_ledger, producer)
    broker = await run_in_threadpool(_broker, producer.settings.redis_url)
    response.status_code = 200 if ledger == "ok" else 503
    return {"status": "ready" if ledger == "ok" else "not ready", "ledger": ledger, "broker": broker}


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, _caller: Admin) -> Response:
    """Return everything in Prometheus's text format. It tells of every tenant, so it takes the scope ``admin``."""
    producer: Producer = request.app.state.producer
    standing = await run_in_threadpool(producer.standing)
    gates = await run_in_threadpool(producer.gate_standing)
    breakers = await run_in_threadpool(_breakers, producer)
    return Response(request.app.state.metrics.text(standing, gates, breakers), media_type=CONTENT_TYPE)


@router.get("/problems/{name}")
async def problem(name: str) -> dict[str, Any]:
    """Explain a kind of problem."""
    kind = KINDS.get(name)
    if kind is None:
        raise Problem("not-found", "there is no problem of that name")
    return {"type": f"/problems/{name}", "title": kind.title, "status": kind.status, "what_to_do": kind.again}


def _breakers(producer: Producer) -> Sequence[BreakerRecord] | None:
    try:
        return producer.breakers.list()
    except BreakersUnavailable:
        return None


def _ledger(producer: Producer) -> str:
    try:
        producer.ping()
    except LedgerUnavailable:
        return "away"
    return "ok"


def _broker(url: str) -> str:
    if not is_redis(url):
        return "not asked"
    try:
        with redis_client(url, **bounded_redis()) as client:
            client.ping()
    except Exception:  # noqa: BLE001  whatever it is, it is away
        return "away"
    return "ok"

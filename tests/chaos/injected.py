"""What the workers of the chaos tests load as a module of actions: the actions, and the places where they park.

Named in SUREFOOT_ACTION_MODULES, it is imported before a worker's parts are made. It wraps the product's own functions,
here in the workers alone; the product has no hooks for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any

from celery import signals
from sqlalchemy import text
from sqlalchemy.engine import Connection

import tests.chaos.actions
import tests.chaos.scenarios.actions  # noqa: F401  registers them, as the one above does
import worker.parts
import worker.schedule
import worker.writer
from producer.ring import Bell, Ring
from tests.chaos.agent import Agent
from tests.chaos.defective import CLOCK, MUTANT, set_ahead
from tests.chaos.parking import prove_alive
from worker.leases import Leases
from worker.relay import Relay
from worker.runner import Runner
from worker.schedule import Ticker
from worker.transport import QoS

OVERDUE = text("SELECT EXISTS (SELECT FROM approvals WHERE state = 'pending' AND expires_at < clock_timestamp())")
LAPSED = text("SELECT EXISTS (SELECT FROM jobs WHERE lease_expires_at < clock_timestamp())")

agent = Agent()
if CLOCK in os.environ:
    set_ahead(float(os.environ[CLOCK]))


def _around(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = getattr(owner, name)
    setattr(owner, name, wraps(original)(wrap(original)))


def _around_statement(step: str, name: str, job_of: Callable[[Any], Any]) -> None:
    """Park the writer's thread before a statement of its, and once that is committed."""

    def wrap(write: Callable[..., Any]) -> Callable[..., Any]:
        def run(connection: Connection, *args: Any, **how: Any) -> Any:
            jobs = [job_of(row) for row in args[-1]]
            agent.park(f"{step}.before", jobs)
            answer = write(connection, *args, **how)
            if agent.park(f"{step}.committed", jobs):
                prove_alive(connection)
            return answer

        return run

    _around(worker.writer, name, wrap)


def _perform(perform: Callable[..., Any]) -> Callable[..., Any]:
    async def run(self: Runner, performance: Any) -> Any:
        jobs = [performance.attempt.job_id]
        await agent.park_here("perform.before", jobs)
        returned = await perform(self, performance)
        await agent.park_here("effect.dropped", jobs)
        await agent.park_here("effect.answered", jobs)
        return returned

    return run


def _run(run: Callable[..., Any]) -> Callable[..., Any]:
    async def counted(self: Runner, action: str, job_ids: Sequence[Any]) -> Any:
        agent.busy += 1
        try:
            return await run(self, action, job_ids)
        finally:
            agent.busy -= 1

    return counted


def _ring_now(ring_now: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: Bell, rings: Iterable[Ring]) -> Any:
        rings = list(rings)
        is_relay = threading.current_thread().name == "relay"
        jobs = [ring.job_id for ring in rings]
        if is_relay:
            agent.park("relay.before_ring", jobs)
        unrung = ring_now(self, rings)
        if is_relay:
            agent.park("relay.after_ring", jobs)
        return unrung

    return run


def _ring(ring: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: Bell, rings: Iterable[Ring]) -> None:
        rings = list(rings)
        if threading.current_thread().name == "ring-timer":
            agent.park("retry.due", [each.job_id for each in rings])
        ring(self, rings)

    return run


def _depths(depths: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: Relay, queues: list[str]) -> Any:
        agent.park("relay.before_mark")
        return depths(self, queues)

    return run


def _rescue(rescue: Callable[..., int]) -> Callable[..., int]:
    def run(connection: Connection, **facts: Any) -> int:
        if agent.is_armed("rescue.before") and connection.execute(LAPSED).scalar():
            agent.park("rescue.before")
        rescued = rescue(connection, **facts)
        if rescued:
            agent.park("rescue.committed")
        return rescued

    return run


def _sweep_approvals(sweep: Callable[..., int]) -> Callable[..., int]:
    def run(connection: Connection, **facts: Any) -> int:
        if agent.is_armed("expire.before") and connection.execute(OVERDUE).scalar():
            agent.park("expire.before")
        swept = sweep(connection, **facts)
        if swept:
            agent.park("expire.committed")
        return swept

    return run


def _accept_ticks(accept: Callable[..., Any]) -> Callable[..., Any]:
    def run(connection: Connection, rounds: Any) -> Any:
        answers = accept(connection, rounds)
        if answers:
            agent.park("tick.accepted")
        return answers

    return run


def _tick(tick: Callable[..., int]) -> Callable[..., int]:
    def run(self: Ticker, connection: Connection, batch: int) -> int:
        ticked = tick(self, connection, batch)
        if ticked:
            agent.park("tick.committed")
        return ticked

    return run


def _renew(renew: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: Leases, held: Any) -> None:
        agent.park("renewal.before", [job_id for job_id, _ in held])
        renew(self, held)

    return run


def _ack(ack: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: QoS, delivery_tag: str) -> None:
        agent.park("ack.before")
        ack(self, delivery_tag)
        agent.park("ack.after")

    return run


@signals.task_received.connect(weak=False)
def _received(request: Any = None, **_: Any) -> None:
    agent.park("ring.received", request.args)


_around_statement("claim", "claim", lambda wanted: wanted.job_id)
_around_statement("intend", "intend", lambda intent: intent.job_id)
_around_statement("settle", "settle", lambda settlement: settlement.job_id)
_around_statement("turn", "take_turns", lambda wanted: wanted.lease[0])
_around_statement("bring", "settle_with", lambda settlement: settlement.job_id)
_around_statement("take_up", "take_up", lambda look: look.job_id)
_around_statement("rule", "write_rulings", lambda ruling: ruling.job_id)
_around_statement("review", "review", lambda asked: asked.job_id)
_around_statement("consume", "intend_approved", lambda intent: intent.job_id)
_around_statement("reserve", "intend_reserving", lambda intent: intent.job_id)
_around_statement("spend", "settle_spending", lambda settlement: settlement.job_id)
_around(Runner, "perform", _perform)
_around(Runner, "run", _run)
_around(Bell, "ring_now", _ring_now)
_around(Bell, "ring", _ring)
_around(Relay, "_depths", _depths)
_around(worker.parts, "rescue", _rescue)
_around(worker.parts, "sweep_approvals", _sweep_approvals)
_around(worker.schedule, "_accept", _accept_ticks)
_around(Ticker, "_tick", _tick)
_around(Leases, "_renew", _renew)
_around(QoS, "ack", _ack)
if MUTANT in os.environ:
    from tests.chaos.mutants.defects import mutate

    mutate(os.environ[MUTANT], agent)

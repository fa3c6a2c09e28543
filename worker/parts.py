"""Everything one worker process works with, put together in one place."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from celery import Celery
from sqlalchemy import Engine

from producer.announce import Announcer
from producer.ledger.engine import open_engine
from producer.ledger.seals import SealKey
from producer.ring import Bell
from tasks import ActionSpec
from tasks._rules import rules_for
from worker.alerts import Alerts
from worker.anchors import Anchors
from worker.approval_sweep import sweep_approvals
from worker.breaker_moves import SWEEP_BATCH, Moves
from worker.breaker_waiters import WAITERS_SECONDS, Waiters
from worker.breakers import Breakers
from worker.budget_pruner import PRUNE_BATCH, PRUNE_SECONDS, prune_budgets
from worker.budgets import Budgets
from worker.canary import Canary
from worker.conversations import Conversations
from worker.duty import Duty
from worker.fallback import Fallbacks
from worker.fleet import AWAY_SECONDS, Fleet
from worker.follow_ups import FollowUps
from worker.forgotten import FORGOTTEN_SECONDS, Forgotten
from worker.gates import Gates
from worker.holds import Holds
from worker.leases import Leases
from worker.limits import Limits
from worker.log import log
from worker.loop import process_loop
from worker.perform import Performer
from worker.policies import Policies
from worker.published import LOOK_SECONDS, Published
from worker.relay import Relay
from worker.rescue import rescue
from worker.retry_budget import RetryBudget
from worker.runner import Runner
from worker.schedule import Ticker
from worker.sealer import SEAL_SECONDS, Sealer
from worker.seldom_redis import SeldomRedis
from worker.served import Served
from worker.settings import NOWHERE, WorkerSettings
from worker.threads import Threads
from worker.timer import RingTimer
from worker.validation import Validation
from worker.verifier import Verifier
from worker.writer import Writer


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of this process; a forked child makes its own."""

    engine: Engine
    bell: Bell
    runner: Runner
    relay: Relay
    canary: Canary
    alerts: Alerts
    anchors: Anchors


def assemble(
    settings: WorkerSettings, actions: Mapping[str, ActionSpec], app: Celery, served: Served | None = None
) -> Parts:
    """Make the parts. Nothing connects and no thread starts before it is needed.

    How far the queues are served is all that processes share; None is for one that has no children.
    """
    worker, served = worker_name(), served or Served()
    # Three connections at most, whatever the concurrency: the writer's, the renewals', and the relay's, which only a
    # worker's first process opens.
    engine = open_engine(settings.database_url, connections=1, name=f"{worker[:56]} relay")
    bell = Bell(settings.redis_url, timeout_seconds=settings.ring_timeout_seconds, app=app)
    announcer = Announcer(settings.redis_url)
    limits = Limits(settings.redis_url, worker=worker, lease_seconds=settings.lease_seconds, ring=bell.ring)
    leases = Leases(
        open_engine(settings.database_url, connections=1, name=f"{worker[:56]} lease"),
        worker=worker,
        lease_seconds=settings.lease_seconds,
        renew_seconds=settings.renew_seconds,
        on_renewed=lambda kept: _on_loop(limits.renew(kept)),
    )
    follow_ups = FollowUps(queue=settings.queue, ring=bell.ring)
    writer = Writer(
        open_engine(settings.database_url, connections=1, name=worker[:63]),
        worker=worker,
        lease_seconds=settings.lease_seconds,
        on_claimed=leases.keep,
        on_accepted=follow_ups.ring,
    )
    rules = {name: rules for name in actions if (rules := rules_for(name))}
    published = Published(actions, rules)
    performer, timer = Performer(thread_places=settings.threads, threads=Threads()), RingTimer(bell)
    fleet = Fleet(settings.redis_url, on_away=_log_away)
    gates = Gates(
        leases=leases,
        policies=Policies(rules, published, writer, leases, performer, jitter=random.random),
        conversations=Conversations(writer, ring=bell.ring, jitter=random.random),
        holds=Holds(fleet),
        limits=limits,
        retries=RetryBudget(fleet),
        budgets=Budgets(writer, random.random),
        breakers=Breakers(settings.redis_url, fleet, worker=worker),
        fallbacks=Fallbacks(performer),
        jitter=random.random,
    )
    runner = Runner(
        actions=actions,
        writer=writer,
        leases=leases,
        gates=gates,
        follow_ups=follow_ups,
        performer=performer,
        validation=Validation(performer),
        verifier=Verifier(writer, performer, timer, announcer, settings.crash_cap),
        timer=timer,
        announcer=announcer,
        served=served,
        jitter=random.random,
    )
    alerts = Alerts(settings, who=worker)
    anchors = Anchors(
        "" if settings.anchor_to == NOWHERE else settings.anchor_to, every_seconds=settings.anchor_seconds
    )
    sealer = Sealer(SealKey.of(settings.signing_key), on_sealed=anchors.sealed)
    redis = SeldomRedis(settings.redis_url)  # the relay's, whose duties are done one after another
    relay = Relay(
        engine,
        bell,
        worker=worker,
        every_seconds=settings.relay_seconds,
        tick=Ticker(queue=settings.queue).tick,
        rescue=partial(rescue, worker=worker, crash_cap=settings.crash_cap, announce=announcer.announce),
        approvals=partial(sweep_approvals, worker=worker, announce=announcer.announce),
        announce=announcer.announce,
        first=[
            Duty("breakers", Moves(redis).sweep, batch=SWEEP_BATCH),
            Duty("waiters", Waiters(redis).look, every_seconds=WAITERS_SECONDS),
            Duty("limits", Forgotten(redis, actions.values(), ring=bell.ring).look, every_seconds=FORGOTTEN_SECONDS),
        ],
        last=[
            Duty("policies", published.read, every_seconds=LOOK_SECONDS),
            Duty("seals", sealer.seal, every_seconds=SEAL_SECONDS),
            Duty("alerts", alerts.look, every_seconds=settings.alert_look_seconds),
            Duty(
                "budgets",
                partial(prune_budgets, days=settings.budget_days),
                every_seconds=PRUNE_SECONDS,
                batch=PRUNE_BATCH,
            ),
        ],
        known=lambda: {name: spec.version for name, spec in actions.items() if published.lacking(name) is None},
        served=served,
    )
    canary = Canary(
        app,
        worker=worker,
        every_seconds=settings.canary_seconds,
        deaf_seconds=settings.deaf_seconds,
        grace=max((spec.policy.timeout for spec in actions.values()), default=0.0),
    )
    return Parts(engine, bell, runner, relay, canary, alerts, anchors)


def _log_away(error: str) -> None:
    log.warning("dependency.unshared", error=error, for_seconds=AWAY_SECONDS)


def _on_loop(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run_coroutine_threadsafe(work, process_loop())


def worker_name() -> str:
    """Return a name that no other living process has: the host's and the process id."""
    return f"{socket.gethostname()}:{os.getpid()}"

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
from producer.ring import Bell
from tasks import ActionSpec
from worker.breaker import Holds
from worker.canary import Canary
from worker.conversations import Conversations
from worker.follow_ups import FollowUps
from worker.leases import Leases
from worker.limits import Limits
from worker.loop import process_loop
from worker.perform import Performer
from worker.relay import Relay
from worker.rescue import rescue
from worker.runner import Runner
from worker.schedule import Ticker
from worker.settings import WorkerSettings
from worker.threads import Threads
from worker.timer import RingTimer
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


def assemble(settings: WorkerSettings, actions: Mapping[str, ActionSpec], app: Celery) -> Parts:
    """Make the parts. Nothing connects and no thread starts before it is needed."""
    worker = worker_name()
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
    performer, timer = Performer(thread_places=settings.threads, threads=Threads()), RingTimer(bell)
    runner = Runner(
        actions=actions,
        writer=writer,
        leases=leases,
        holds=Holds(settings.redis_url),
        limits=limits,
        conversations=Conversations(writer, ring=bell.ring, jitter=random.random),
        follow_ups=follow_ups,
        performer=performer,
        verifier=Verifier(writer, performer, timer, announcer, settings.crash_cap),
        timer=timer,
        announcer=announcer,
        jitter=random.random,
    )
    relay = Relay(
        engine,
        bell,
        worker=worker,
        every_seconds=settings.relay_seconds,
        tick=Ticker(queue=settings.queue).tick,
        rescue=partial(rescue, worker=worker, crash_cap=settings.crash_cap, announce=announcer.announce),
        announce=announcer.announce,
    )
    canary = Canary(
        app,
        worker=worker,
        every_seconds=settings.canary_seconds,
        deaf_seconds=settings.deaf_seconds,
        grace=max((spec.policy.timeout for spec in actions.values()), default=0.0),
    )
    return Parts(engine, bell, runner, relay, canary)


def _on_loop(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run_coroutine_threadsafe(work, process_loop())


def worker_name() -> str:
    """Return a name that no other living process has: the host's and the process id."""
    return f"{socket.gethostname()}:{os.getpid()}"

"""A lane: a database, a Redis, two workers and an asker, in which cells are played one after another.

Lanes share one Postgres and one effect server. A worker that died is replaced at once, and has started by the time the
next cell needs it: most of what a cell costs is the start of a process.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import redis
from sqlalchemy import text
from sqlalchemy.engine import make_url

from producer.ledger.engine import open_engine
from tests.chaos import actions
from tests.chaos.agent import SOCKET
from tests.chaos.defective import CLOCK, MUTANT
from tests.chaos.patience import until
from tests.chaos.processes import Asker, Member, Worker, World, start_asker, start_worker, wait_ready
from tests.chaos.switchboard import Switchboard
from worker.dev.servers import Valkey

LEASE_SECONDS = 1.2
RENEW_SECONDS = 0.3
SWEEP_SECONDS = 0.3
CRASH_CAP = 3
WORKERS = 2
CONNECT_SECONDS = 20.0
HARNESS = "chaos-harness"

ENDED = text("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid = ANY(:pids)")
SESSIONS = text("SELECT pid, application_name FROM pg_stat_activity WHERE datname = current_database()")


@dataclass(frozen=True, slots=True)
class Crew:
    """Who a cell needs: workers with or without child processes, with which defect, and how far ahead their clocks."""

    prefork: bool = False
    mutant: str | None = None
    clock_ahead: float = 0.0

    @property
    def environment(self) -> dict[str, str]:
        """What tells its processes so."""
        defect = {} if self.mutant is None else {MUTANT: self.mutant}
        return defect if not self.clock_ahead else defect | {CLOCK: f"{self.clock_ahead}"}


class Lane:
    """One lane. For one thread at a time.

    Attributes:
        workers: Two of them or more; dead ones until `replace`.
        cast: Whoever has taken part in the present cell, the dead too.
    """

    def __init__(self, folder: Path, *, database_url: str, world: World, crew: Crew) -> None:
        """Start its servers and processes; wait for none of them.

        Args:
            folder: Its own; of a short path, since there is a socket in it.
            database_url: Its own, migrated, with the actions published.
            world: Shared.
            crew: Its workers at first.
        """
        self.folder, self.world, self.crew = folder, world, crew
        folder.mkdir()
        self.valkey = Valkey(folder)
        self.valkey.start()
        self.switchboard = Switchboard(folder / "agents")
        self.engine = open_engine(database_url, connections=2, name=HARNESS)
        self._environment = os.environ | {
            "SUREFOOT_DATABASE_URL": database_url,
            "SUREFOOT_REDIS_URL": self.valkey.url,
            "SUREFOOT_ACTION_MODULES": "tests.chaos.injected",
            "SUREFOOT_LOG": "json",
            "SUREFOOT_LEASE_SECONDS": f"{LEASE_SECONDS}",
            "SUREFOOT_RENEW_SECONDS": f"{RENEW_SECONDS}",
            "SUREFOOT_RELAY_SECONDS": f"{SWEEP_SECONDS}",
            "SUREFOOT_CRASH_CAP": f"{CRASH_CAP}",
            SOCKET: str(self.switchboard.path),
            actions.WORLD: world.url,
        }
        self._numbers = itertools.count(1)
        self.workers: list[Worker] = []
        self.cast: list[Member] = []
        self.asker = self._new_asker()
        self.replace()

    @property
    def members(self) -> Sequence[Member]:
        """All of its processes."""
        return [*self.workers, self.asker]

    @property
    def roots(self) -> list[int]:
        """The workers' first processes."""
        return [worker.pid for worker in self.workers]

    def replace(self, workers: int = WORKERS) -> None:
        """Start others for those that died, so that there are so many; wait for none of them."""
        self.workers = [worker for worker in self.workers if worker.lives]
        while len(self.workers) < workers:
            name = f"worker-{next(self._numbers)}"
            environment = self._environment | self.crew.environment
            self.workers.append(start_worker(name, self.folder, environment, prefork=self.crew.prefork))
            self.cast.append(self.workers[-1])
        if not self.asker.lives:
            self.asker.hang_up()
            self.asker = self._new_asker()

    def ready(self, crew: Crew, *, workers: int) -> None:
        """Have everybody there, and so many of such workers; raises `NotReached` if somebody does not come."""
        if crew != self.crew:
            for member in self.workers if crew.mutant == self.crew.mutant else self.members:
                member.end()
            self.crew = crew
        self.replace(workers)
        self.valkey.start()
        for worker in self.workers:
            wait_ready(worker)
            self.connected(worker, processes=1 + self.crew.prefork)
        self.connected(self.asker)
        self.cast = [*self.members]
        for member in self.cast:
            member.began_at = member.log.stat().st_size

    def connected(self, member: Member, *, processes: int = 1) -> None:
        """Wait until so many processes of a member obey the harness; raises `NotReached` if they do not come."""
        until(
            lambda: len(self.switchboard.pids_of(member.pid)) >= processes,
            seconds=CONNECT_SECONDS,
            what=f"{member.name}'s agent",
        )

    def worker_of(self, pid: int) -> Worker:
        """Return the worker that a process belongs to."""
        return next(worker for worker in self.workers if pid in self.switchboard.pids_of(worker.pid) | {worker.pid})

    def sessions_of(self, member: Member) -> list[int]:
        """Return the Postgres sessions of a process and its children."""
        names = {
            f"{worker[:56]}{part}"
            for pid in self.switchboard.pids_of(member.pid) | {member.pid}
            for worker in [f"{socket.gethostname()}:{pid}"]
            for part in ("", " lease", " relay")
        }
        if isinstance(member, Asker):
            names = {"surefoot-producer"}
        with self.engine.connect() as connection:
            return [row.pid for row in connection.execute(SESSIONS) if row.application_name in names]

    def cut(self, member: Member) -> int:
        """End a process's sessions in Postgres; return how many there were, once they are gone."""
        pids = self.sessions_of(member)
        with self.engine.connect() as connection:
            connection.execute(ENDED, {"pids": pids})
            until(
                lambda: not {row.pid for row in connection.execute(SESSIONS)} & set(pids),
                seconds=CONNECT_SECONDS,
                what="the end of the sessions",
            )
        return len(pids)

    def strangers(self) -> int:
        """Return how many Postgres sessions belong to no living process of the lane."""
        known = {pid for member in self.members if member.lives for pid in self.sessions_of(member)}
        with self.engine.connect() as connection:
            rows = connection.execute(SESSIONS).all()
        return sum(row.pid not in known and row.application_name != HARNESS for row in rows)

    def redis(self) -> redis.Redis:
        """Return a client of the lane's Redis; the caller closes it."""
        return redis.Redis.from_url(self.valkey.url)

    def close(self) -> None:
        """End everything."""
        for member in self.members:
            member.end()
        self.switchboard.close()
        self.engine.dispose()
        self.valkey.stop()

    def _new_asker(self) -> Asker:
        environment = self._environment | self.crew.environment
        asker = start_asker(f"asker-{next(self._numbers)}", self.folder, environment)
        self.cast.append(asker)
        return asker


def with_database(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)

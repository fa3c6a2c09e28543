"""Alerts: somebody is told what went wrong, and that it is over, beside the jobs' way and never on it.

The relay, or `surefoot-worker watch`, looks at the ledger over the connection that it has; everything else happens in a
thread of its own, and in one for each channel. One process of the fleet looks at a time. A job that ended badly is
claimed before it is told, and kept as told once a channel took it: whoever dies in between has others tell it, two
minutes later. So a thing is told once, or, where Redis was lost or somebody died at the wrong moment, once more.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from datetime import UTC, datetime

from sqlalchemy.engine import Connection

from worker.alert_channels import Channel, addresses
from worker.alert_looks import Look, Looker
from worker.alert_memory import Memory
from worker.alert_teller import Teller
from worker.alert_words import Alert
from worker.log import log
from worker.settings import WorkerSettings

SHORTEST_TURN_SECONDS = 3.0
# A stop waits for so long, all channels together, for what is already claimed; and then for Redis.
FLUSH_SECONDS, LEAVE_SECONDS = 3.0, 1.0
# Looks that wait for the thread, should it ever be late; beyond it there is no use in looking.
HELD = 10


class Alerts:
    """One process's. Does nothing at all where there are no URLs."""

    def __init__(self, settings: WorkerSettings, *, who: str, is_worker: bool = True) -> None:
        """Start nothing yet.

        Args:
            settings: URLs, and when to tell what.
            who: A name that no other process has.
            is_worker: Whether this process is one: then there is no use in asking whether one is alive.
        """
        turn = max(3 * settings.alert_look_seconds, SHORTEST_TURN_SECONDS)
        self._every = settings.alert_look_seconds
        self._channels = [Channel(each, done=self._done) for each in addresses(settings.alert_urls)]
        self._memory = Memory(settings.redis_url, who=who, turn_seconds=turn)
        self._looker = Looker(settings.alert_due_seconds, settings.alert_silent_seconds)
        self._teller = Teller(
            self._memory,
            self._channels,
            group_seconds=settings.alert_group_seconds,
            hourly=settings.alert_hourly,
            redis_seconds=settings.alert_silent_seconds,
            is_worker=is_worker,
        )
        self._looks: deque[Look] = deque()
        self._told: deque[Alert] = deque()
        self._mine: bool | None = False  # as Redis has it; None where only the ledger can say
        self._looks_here = False
        self._anew = True
        self._stopping, self._stirred = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> None:
        """Start telling, where there is somebody to tell."""
        if self._channels:
            self._thread.start()
            atexit.register(self.flush)

    def stop(self) -> None:
        """Have it end; returns at once. `flush` waits for that."""
        self._stopping.set()
        self._stirred.set()

    def flush(self, seconds: float = FLUSH_SECONDS + LEAVE_SECONDS) -> None:
        """Wait until what was being told is told, so long at most; the rest is others' to tell."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def look(self, connection: Connection) -> None:
        """Look at the ledger, if it is this process's turn. Asks a few indexes and nobody else.

        Args:
            connection: In autocommit, and the same each time as long as it lasts.
        """
        if self._channels and not self._stopping.is_set():
            self._look(connection)

    def ledger(self, *, away_since: datetime | None) -> None:
        """Say since when the ledger does not answer, or that it just did (None). For who watches."""
        self._teller.ledger_since = away_since
        if away_since is None:
            self._teller.ledger_answered = datetime.now(UTC)

    def _look(self, connection: Connection) -> None:
        self._looks_here = self._is_mine(connection)
        if not self._looks_here or len(self._looks) == HELD:
            self._anew = True  # what is not looked at now is gone back for
            return
        if self._anew:
            self._looker.begin_anew()
            self._anew = False
        self._looks.append(self._looker.look(connection))
        self._stirred.set()

    def _is_mine(self, connection: Connection) -> bool:
        if self._mine is None:
            return self._looker.lock(connection)
        self._looker.unlock(connection)
        return self._mine

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._step()
            except Exception as error:  # noqa: BLE001  nobody would miss a thread that tells of all others
                log.error("alert.thread_failed", error=str(error), exc_info=True)
            self._stirred.wait(self._every)
            self._stirred.clear()
        until = time.monotonic() + FLUSH_SECONDS
        for channel in self._channels:
            channel.close()
        for channel in self._channels:
            channel.join(max(0.0, until - time.monotonic()))
        self._teller.leave(self._taken())
        self._memory.give_turn()

    def _step(self) -> None:
        self._mine = self._memory.turn()
        self._teller.kept(self._taken())
        while self._looks:
            self._teller.tell(self._looks.popleft())
        self._teller.tend(datetime.now(UTC), mine=self._looks_here)

    def _taken(self) -> list[Alert]:
        return [self._told.popleft() for _ in range(len(self._told))]

    def _done(self, alert: Alert) -> None:
        self._told.append(alert)
        self._stirred.set()

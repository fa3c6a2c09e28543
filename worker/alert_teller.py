"""What of a look is told: each thing once, those of one action together, and so many in an hour."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain

from worker.alert_channels import Channel
from worker.alert_looks import LATE_COUNTED, Look
from worker.alert_memory import CLAIM_SECONDS, TOLD_SECONDS, Memory
from worker.alert_words import (
    Alert,
    Troubled,
    Waits,
    key_of_move,
    of_approvals,
    of_breaker,
    of_jobs,
    of_late,
    of_ledger_away,
    of_more,
    of_no_worker,
    of_recovery,
    of_redis_away,
)

# What waits for its group to be complete; beyond it, no group is waited for.
HELD = 20_000
# A claim is taken anew well before it is over.
REFRESH_SECONDS = CLAIM_SECONDS / 3


class Teller:
    """One process's, for its one thread.

    Attributes:
        ledger_since: Since when the ledger does not answer; None where it does. Written by who watches, as the next.
        ledger_answered: When it last did.
    """

    def __init__(
        self,
        memory: Memory,
        channels: Sequence[Channel],
        *,
        group_seconds: float,
        hourly: int,
        redis_seconds: float,
        is_worker: bool,
    ) -> None:
        """Start with nothing told.

        Args:
            memory: What the fleet has been told.
            channels: Where to.
            group_seconds: For how long jobs of one action are gathered, from the first of them.
            hourly: The most alerts in an hour.
            redis_seconds: For how long Redis has to be away before that is told.
            is_worker: Whether this process is one, so that one is alive.
        """
        self.ledger_since: datetime | None = None
        self.ledger_answered: datetime | None = None
        self._memory, self._channels = memory, channels
        self._group, self._hourly = timedelta(seconds=group_seconds), hourly
        self._redis_seconds, self._is_worker = redis_seconds, is_worker
        # With when it may be claimed, by `time.monotonic()`, and whether it was another's before.
        self._gathered: dict[str, tuple[Troubled, float, bool]] = {}
        self._under_way: dict[str, Alert] = {}  # by its first key
        self._refresh_at = 0.0
        self._redis_told: datetime | None = None
        self._begun: dict[str, tuple[datetime | None, float]] = {}  # what was told to have begun, and for how long
        self._over_at: dict[str, datetime] = {}  # what is not so any more, and when that may be told

    def tell(self, look: Look) -> None:
        """Tell what is new at a look that was this process's turn."""
        for move in look.moves:
            if not self._memory.knows(key_of_move(move)) and self._memory.claim([key_of_move(move)]):
                self._post(of_breaker(move))
        for job in look.jobs:
            if job.key not in self._gathered and not self._memory.knows(job.key):
                self._gathered[job.key] = (job, 0.0, False)
        self._tell_approvals(look.approvals)
        self._tell_jobs(look.at)
        more = look.late > LATE_COUNTED
        self._stands(
            "late", look.late_since, look.at, lambda since: of_late(look.late - more, since, look.at, more=more)
        )
        unseen = None if self._is_worker else look.unseen_since
        self._stands("no worker", unseen, look.at, lambda since: of_no_worker(since, look.at))

    def tend(self, now: datetime, *, mine: bool) -> None:
        """Do what is to be done without a look: claims that last, what was too much, Redis, the ledger."""
        if time.monotonic() >= self._refresh_at:
            self._refresh_at = time.monotonic() + REFRESH_SECONDS
            self._memory.keep(chain.from_iterable(each.keys for each in self._under_way.values()), CLAIM_SECONDS)
        if not self._is_worker:  # a worker's relay cannot say
            self._tend_ledger(now)
        if mine:
            more = self._memory.more()
            if more:
                self._post(of_more(more))
        self._tend_redis(now, mine=mine)

    def kept(self, done: Iterable[Alert]) -> None:
        """Keep as told what a channel took."""
        for alert in done:
            if alert.keys and self._under_way.pop(alert.keys[0], None) is not None:
                self._memory.keep(alert.keys)

    def leave(self, done: Iterable[Alert]) -> None:
        """Leave to others, at once, what no channel took before this process ends."""
        self.kept(done)
        self._memory.forget(chain.from_iterable(alert.keys for alert in self._under_way.values()))

    def _tell_approvals(self, approvals: Sequence[Waits]) -> None:
        """Tell at once: somebody's time runs."""
        groups: dict[object, list[Waits]] = defaultdict(list)
        for each in approvals:
            if not self._memory.knows(each.key):
                groups[each.group].append(each)
        for waiting in groups.values():
            mine = set(self._memory.claim([each.key for each in waiting]))
            told = [each for each in waiting if each.key in mine]
            if told:
                self._post(of_approvals(told))

    def _tell_jobs(self, now: datetime) -> None:
        groups: dict[object, list[Troubled]] = defaultdict(list)
        for job, not_before, _ in self._gathered.values():
            if not_before <= time.monotonic():
                groups[job.group].append(job)
        for jobs in groups.values():
            jobs.sort(key=lambda job: (job.at, job.id))
            if now - jobs[0].at >= self._group or len(self._gathered) > HELD:
                self._claim(jobs)

    def _claim(self, jobs: Sequence[Troubled]) -> None:
        mine = set(self._memory.claim([job.key for job in jobs]))
        for job in jobs:
            _, _, was_anothers = self._gathered.pop(job.key)
            if job.key not in mine and not was_anothers:
                # Another's, who may have died over it: what is still so when his claim is over is this one's to tell.
                self._gathered[job.key] = (job, time.monotonic() + CLAIM_SECONDS + 1, True)
        told = [job for job in jobs if job.key in mine]
        if told:
            self._post(of_jobs(told))

    def _stands(self, kind: str, since: datetime | None, now: datetime, alert: Callable[[datetime], Alert]) -> None:
        """Tell that something has begun, or that it is over; `since` is None where it is not so.

        Over it is once it was not so for as long as jobs are gathered, lest what comes and goes be told all the time.
        """
        if since is not None:
            self._over_at.pop(kind, None)
            self._begins(alert(since), since)
        elif now >= self._over_at.setdefault(kind, now + self._group):
            self._ends(kind, now)

    def _begins(self, alert: Alert, since: datetime) -> None:
        key = f"on:{alert.kind}"
        told, until = self._begun.get(key, (None, 0.0))
        if told == since and time.monotonic() < until:
            return  # it is told, or another's to tell; or another, who sees it otherwise, has said that it is over
        mine = self._memory.begin(key, since.isoformat())
        # Another's claim may come to nothing; what he has told is over when he says so, for whoever saw it begin, too.
        self._begun[key] = (since, time.monotonic() + (TOLD_SECONDS if mine else CLAIM_SECONDS))
        if mine:
            self._post(replace(alert, keys=(key,)))

    def _ends(self, kind: str, now: datetime) -> None:
        self._under_way.pop(f"on:{kind}", None)
        begun = self._memory.take(f"on:{kind}")
        if begun is not None:
            self._post(of_recovery(kind, datetime.fromisoformat(begun), now))

    def _tend_ledger(self, now: datetime) -> None:
        """Tell of the ledger; that it is back, only if it has answered here since it was told to be away."""
        if self.ledger_since is not None:
            self._begins(of_ledger_away(self.ledger_since, now), self.ledger_since)
        elif self.ledger_answered is not None:
            begun = self._memory.peek("on:ledger")
            if begun is not None and self.ledger_answered > datetime.fromisoformat(begun) + self._group:
                self._ends("ledger", now)

    def _tend_redis(self, now: datetime, *, mine: bool) -> None:
        away = self._memory.away_since
        if away is None:
            if self._redis_told is not None:
                since, self._redis_told = self._redis_told, None
                self._post(of_recovery("redis", since, now))
        elif mine and self._redis_told is None and time.time() - away > self._redis_seconds:
            self._redis_told = datetime.fromtimestamp(away, UTC)
            self._post(of_redis_away(self._redis_told, now))

    def _post(self, alert: Alert) -> None:
        wanting = [channel for channel in self._channels if channel.wants(alert)]
        if not wanting:
            self._memory.keep(alert.keys)
            return
        if alert.kind != "more" and self._memory.count() > self._hourly:
            self._memory.add_more(alert.kind)
            self._memory.keep(alert.keys)
            return
        if alert.keys:
            self._under_way[alert.keys[0]] = alert
        for channel in wanting:
            channel.put(alert)

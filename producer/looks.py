"""When to look at which of the jobs that somebody waits for. Reads no clock and no ledger."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from uuid import UUID

FIRST_PAUSE_SECONDS = 0.002
LONGEST_PAUSE_SECONDS = 0.25
# Most jobs that are waited for end by an announcement that is on its way while they begin to be heard.
FRESH_PAUSE_SECONDS = 0.01
PAUSE_GROWTH = 1.5


@dataclass(slots=True)
class Looks:
    """The jobs waited for, and the times of the next looks at them. Times are monotonic, in seconds.

    Attributes:
        every: How long a lost announcement may stay unnoticed, in seconds.
        took: How long the last look took, in seconds; written by whoever looks.
        fresh: Jobs to look at soon, because they are heard from a moment on, which says nothing of before.
        heard: Jobs whose announcement will be heard.
        unheard: Jobs whose announcement would not be. They are looked at often at first and then less so.
    """

    every: float
    took: float = 0.0
    fresh: set[UUID] = field(default_factory=set)
    heard: set[UUID] = field(default_factory=set)
    unheard: set[UUID] = field(default_factory=set)
    pause: float = FIRST_PAUSE_SECONDS
    all_at: float = math.inf
    fresh_at: float = math.inf
    unheard_at: float = math.inf

    def expect(self, job_id: UUID, now: float) -> None:
        """Look at the job from now on."""
        if not self.heard and not self.unheard:
            self.all_at = now + self.every
        if job_id in self.heard:
            self._freshen({job_id}, now)
        else:
            self.unheard.add(job_id)
            self._hasten(now)

    def drop(self, job_id: UUID) -> None:
        """Look at the job no more."""
        for jobs in (self.fresh, self.heard, self.unheard):
            jobs.discard(job_id)

    def hear(self, job_ids: set[UUID], now: float) -> None:
        """Take note that what is announced of these jobs will be heard, from now on."""
        expected = job_ids & (self.heard | self.unheard)
        self.heard |= expected
        self.unheard -= expected
        self._freshen(expected, now)

    def deafen(self, now: float) -> None:
        """Take note that nothing is heard any more."""
        if self.heard:
            self.unheard |= self.heard
            self.heard.clear()
            self._hasten(now)

    def take(self, now: float) -> list[UUID]:
        """Return the jobs to look at now; none where it is too early. Everything due goes into one look."""
        taken: set[UUID] = set()
        if now >= self.fresh_at:
            taken, self.fresh, self.fresh_at = self.fresh, set(), math.inf
        if self.unheard and now >= self.unheard_at:
            taken |= self.unheard
            self.pause = min(self.pause * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)
            # The pause counts from the end of this look: a slow ledger is looked at half of the time at most.
            self.unheard_at = now + self.pause + self.took
        if now >= self.all_at:
            taken |= self.heard | self.unheard
            self.all_at = now + self.every
        return list(taken)

    def seconds_left(self, now: float) -> float:
        """Return how long there is nothing to look at; infinity where nobody waits."""
        at = min(
            self.fresh_at if self.fresh else math.inf,
            self.unheard_at if self.unheard else math.inf,
            self.all_at if self.heard or self.unheard else math.inf,
        )
        return max(0.0, at - now)

    def _freshen(self, job_ids: set[UUID], now: float) -> None:
        if job_ids and not self.fresh:
            self.fresh_at = now + FRESH_PAUSE_SECONDS
        self.fresh |= job_ids

    def _hasten(self, now: float) -> None:
        self.pause = FIRST_PAUSE_SECONDS
        self.unheard_at = now + self.pause

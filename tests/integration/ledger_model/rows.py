"""What the model of the ledger consists of: rows with their histories, and the time."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from producer.ledger.states import CLOSED, LOOKS, RINGABLE, State


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a job's history; of its data only where it says that the job went."""

    kind: str
    at: datetime
    attempt: int | None = None
    fence: int | None = None
    worker: str | None = None
    to: str | None = None


@dataclass(slots=True)
class Row:
    """A job with its decision's outcome and its history.

    Attributes:
        error: The type of its decision's error.
        touched: What only somebody who sees everything knows: that an attempt may have had its effect, outside, and
            nobody has found out yet that it had not. No column of the ledger.
        touched_before: The same, before the attempt that runs.
    """

    id: UUID
    key: str
    rerun: int
    fingerprint: str
    accepted_at: datetime
    due_at: datetime
    ring_at: datetime
    deadline_at: datetime | None
    state: State = State.QUEUED
    waiting_for: str | None = None
    replays: int = 0
    attempt: int = 0
    crashes: int = 0
    fence: int = 0
    effect: str | None = None
    repeatable_until: datetime | None = None
    maybe_happened: bool = False
    lease_owner: str | None = None
    lease_expires_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    finished_at: datetime | None = None
    quiet_at: datetime | None = None
    looks_left: int | None = None
    absent_at: datetime | None = None
    degraded_by: str | None = None
    repairs: int = 0
    result: Any = None
    error: str | None = None
    tokens_in: int | None = None
    events: list[Event] = field(default_factory=list)
    touched: bool = field(default=False, compare=False)
    touched_before: bool = field(default=False, compare=False)

    def rings_at(self, now: datetime) -> bool:
        """Whether it is to be rung, for a worker or for a look."""
        return (self.state in RINGABLE or bool(self.looks_left)) and self.ring_at <= now

    def owned_by(self, worker: str, fence: int) -> bool:
        """Whether this worker has the job under this fence."""
        return self.fence == fence and self.lease_owner == worker

    def leased_at(self, now: datetime) -> bool:
        """Whether its lease holds."""
        return self.lease_expires_at is not None and self.lease_expires_at > now

    def overdue_at(self, now: datetime) -> bool:
        """Whether its deadline has passed."""
        return self.deadline_at is not None and self.deadline_at <= now

    def release(self, state: State, now: datetime) -> None:
        """Put it where nobody owns it."""
        self.state, self.waiting_for = state, None
        self.lease_owner = self.lease_expires_at = None
        self.finished_at = now if state in CLOSED else None
        self.looks_left = LOOKS if state is State.IN_DOUBT and self.quiet_at is not None else None

    def look_up_at(self, moment: datetime) -> None:
        """Have it looked up then, where it is in doubt by now; due for a worker, where it waits."""
        self.due_at = self.ring_at = moment


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a worker is told of a job that it claimed. The seconds that are left are None where nothing ends."""

    job_id: UUID
    fence: int
    number: int
    maybe_happened: bool
    cancel_requested: bool
    deadline_left: float | None
    repeat_left: float | None
    intended_before: bool


class Rows:
    """The jobs of one tenant, and what of it a crash of Postgres may take back."""

    def __init__(self, now: datetime) -> None:
        """Begin with no job at all."""
        self.now = now
        self.rows: dict[UUID, Row] = {}
        self._on_disk: dict[UUID, Row] | None = None

    @property
    def forgets(self) -> bool:
        """Whether anything was committed without waiting for the disk, since the last commit that waited."""
        return self._on_disk is not None

    def crash(self) -> None:
        """Forget just that."""
        if self._on_disk is not None:
            self.rows, self._on_disk = self._on_disk, None

    def committing(self, *, waits: bool = True) -> None:
        """Say, before anything is changed, that a change is committed, and whether that waits for the disk."""
        if waits:
            self._on_disk = None
        elif self._on_disk is None:
            self._on_disk = copy.deepcopy(self.rows)

    def later(self, seconds: float) -> datetime:
        """Return the moment that is so far away."""
        return self.now + timedelta(seconds=seconds)

    def left(self, moment: datetime | None) -> float | None:
        """Return the seconds until a moment."""
        return None if moment is None else (moment - self.now).total_seconds()

    def note(self, row: Row, kind: str, **more: Any) -> None:
        """Add to a job's history."""
        row.events.append(Event(str(kind), self.now, **more))

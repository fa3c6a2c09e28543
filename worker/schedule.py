"""Ticking: every worker makes the jobs of schedules that are due. No beat and no leader, so nobody's death stops it.

A tick is an idempotency key, and its job is accepted in the transaction that moves the schedule on, under the lock of
its row: of several workers that see it due one makes the job, and a worker that dies on the way leaves the tick to the
others. The relay rings for the jobs, as for any that nobody rang.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from producer.catalogue import Actions, Catalogue
from producer.declaration import request_of
from producer.envelope import Envelope
from producer.errors import RequestRefused
from producer.ledger.accept import Answer, accept
from producer.ledger.engine import transaction_on
from producer.ledger.reads import published_actions
from producer.ledger.schedules import DUE, NEXT, Advance, ScheduleRecord, advance, record_of
from producer.sealing import seal_by
from producer.ticks import spelled
from worker.due import Due, due
from worker.log import log

BATCH = 100
# Where other workers are at what is due, they will be done soon.
OTHERS_SECONDS = 0.2
# What this worker cannot tick is left to others for so long.
ASIDE_SECONDS = 60.0
ERROR_LIMIT = 1_000


@dataclass(frozen=True, slots=True)
class _Round:
    """What a round is to make of one schedule.

    Attributes:
        envelopes: Its jobs, the oldest tick's first.
        error: Why it makes none.
    """

    schedule: ScheduleRecord
    due: Due
    envelopes: Sequence[Envelope] = ()
    error: str | None = None


class Ticker:
    """Ticks the schedules of all tenants, for one relay."""

    def __init__(self, *, queue: str) -> None:
        """Read nothing yet.

        Args:
            queue: For actions that name none.
        """
        self._queue = queue
        self._aside: dict[UUID, float] = {}
        self._reads_by: Connection | None = None
        self._catalogue = Catalogue(dict)

    def tick(self, connection: Connection) -> float:
        """Make the jobs of what is due, of at most 100 schedules; return the seconds until there is more to do.

        A worker that dies here leaves every tick either with its job and behind its schedule, or neither.

        Args:
            connection: In autocommit.
        """
        seconds = self._seconds_to_next(connection)
        if seconds > 0:
            return seconds
        ticked = self._tick(connection, BATCH)
        seconds = self._seconds_to_next(connection)
        return max(seconds, 0.0 if ticked else OTHERS_SECONDS)

    def _seconds_to_next(self, connection: Connection) -> float:
        now = time.monotonic()
        self._aside = {schedule: until for schedule, until in self._aside.items() if until > now}
        seconds = connection.execute(NEXT, {"aside": list(self._aside)}).scalar()
        return math.inf if seconds is None else float(seconds)

    def _tick(self, connection: Connection, batch: int) -> int:
        """Tick a batch in one transaction; return how many schedules it has moved on."""
        locked: list[ScheduleRecord] = []
        try:
            with transaction_on(connection):
                rows = connection.execute(DUE, {"batch": batch, "aside": list(self._aside)}).all()
                locked += map(record_of, rows)
                found = [self._round(connection, *each) for each in zip(locked, (row.now for row in rows), strict=True)]
                rounds = [each for each in found if each is not None]
                answers = _accept(connection, rounds)
                advance(connection, [_advance(each, answers) for each in rounds])
        except Exception as error:  # one that cannot be foreseen must not stop the others, nor the relay's other duties
            if not locked or (isinstance(error, DBAPIError) and error.connection_invalidated):
                raise
            if len(locked) > 1:
                return sum(self._tick(connection, 1) for _ in locked)
            self._set_aside(locked[0], str(error))
            return 0
        for each in rounds:
            _tell(each, answers)
        return len(rounds)

    def _round(self, connection: Connection, schedule: ScheduleRecord, now: datetime) -> _Round | None:
        try:
            found = due(schedule.rule, schedule.missed, schedule.next_tick, now)
        except RequestRefused as error:  # this machine does not know its zone; another may
            self._set_aside(schedule, str(error))
            return None
        refusal = ""
        for known in self._looks(connection):
            try:
                return _Round(schedule, found, [self._seal(known, schedule, tick) for tick in found.ticks])
            except RequestRefused as error:  # by old news, perhaps: the next look is at what there is now
                refusal = str(error)[:ERROR_LIMIT]
        return _Round(schedule, found, error=refusal)

    def _seal(self, known: Actions, schedule: ScheduleRecord, tick: datetime) -> Envelope:
        return seal_by(known, request_of(schedule, tick), tenant=schedule.tenant, queue=self._queue)

    def _looks(self, connection: Connection) -> Iterator[Actions]:
        if connection is not self._reads_by:
            self._reads_by, self._catalogue = connection, Catalogue(lambda: published_actions(connection))
        return self._catalogue.looks()

    def _set_aside(self, schedule: ScheduleRecord, why: str) -> None:
        self._aside[schedule.id] = time.monotonic() + ASIDE_SECONDS
        name, tenant = schedule.name, schedule.tenant
        log.warning("schedule.set_aside", schedule=name, tenant=tenant, error=why[:ERROR_LIMIT], seconds=ASIDE_SECONDS)


def _accept(connection: Connection, rounds: Sequence[_Round]) -> dict[str, Answer]:
    """Accept every job of a batch; not rung for here, so that the relay does at once."""
    envelopes = [envelope for each in rounds for envelope in each.envelopes]
    answers = accept(connection, envelopes, rings=False) if envelopes else []
    return {str(e.id): answer for e, answer in zip(envelopes, answers, strict=True)}


def _advance(each: _Round, answers: dict[str, Answer]) -> Advance:
    schedule, found = each.schedule, each.due
    if each.error is not None:
        return Advance(id=schedule.id, next_tick=found.next_tick, last_error=each.error)
    if not each.envelopes:
        return Advance(id=schedule.id, next_tick=found.next_tick, last_error=schedule.last_error)
    return Advance(
        id=schedule.id,
        next_tick=found.next_tick,
        last_tick=found.ticks[-1],
        last_job_id=answers[str(each.envelopes[-1].id)].job_id,
        last_error=_conflict(each, answers),
    )


def _conflict(each: _Round, answers: dict[str, Answer]) -> str | None:
    """Return what is wrong where somebody has used a tick's key for something else."""
    for envelope in each.envelopes:
        answer = answers[str(envelope.id)]
        if answer.outcome == "conflict":
            return f"idempotency key {envelope.idempotency_key!r} already stands for another request, {answer.job_id}"
    return None


def _tell(each: _Round, answers: dict[str, Answer]) -> None:
    schedule, found = each.schedule, each.due
    name, tenant = schedule.name, schedule.tenant
    if found.missed_since is not None:
        since, jobs = spelled(found.missed_since), len(found.ticks)
        log.warning("schedule.missed", schedule=name, tenant=tenant, since=since, missed=schedule.missed, jobs=jobs)
    error = each.error or _conflict(each, answers)
    if error is None and found.ticks:
        tick = spelled(found.ticks[-1])
        log.info("schedule.ticked", schedule=name, tenant=tenant, tick=tick, jobs=len(found.ticks))
    elif error is not None and error != schedule.last_error:  # once, however many ticks it lasts
        log.warning("schedule.refused", schedule=name, tenant=tenant, tick=spelled(found.ticks[-1]), error=error)

"""The schedules of one tenant: adding, seeing, pausing and removing them. Workers tick them (worker/schedule.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from sqlalchemy.engine import Connection

from producer.acting import actor, check_reason
from producer.canonical import shown
from producer.catalogue import Catalogue
from producer.declaration import Declaration, check_requests, declare
from producer.envelope import DEFAULT_PRIORITY, NAME_LIMIT, check_name
from producer.errors import InvalidRequest, ScheduleExists, ScheduleNotFound
from producer.ledger import schedules as ledger
from producer.ledger.acts import act_of, on_record
from producer.ledger.schedules import Declared, ScheduleRecord
from producer.sealing import seal_by

if TYPE_CHECKING:
    from producer.settings import Settings

T = TypeVar("T")

Read = Callable[[Callable[[Connection], Any]], Any]


class Schedules:
    """What ``producer.schedules`` is. Safe to share between threads."""

    def __init__(self, settings: Settings, catalogue: Catalogue, read: Read) -> None:
        """Come from a Producer, with its connections."""
        self._settings, self._catalogue, self._read = settings, catalogue, read

    def add(
        self,
        name: str,
        action: str,
        params: Any = None,
        *,
        cron: str | None = None,
        every: int | timedelta | None = None,
        zone: str | None = None,
        missed: str = "latest",
        user_id: str | None = None,
        request_id: str | None = None,
        agent_id: str | None = None,
        reasoning: str | None = None,
        queue: str | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> ScheduleRecord:
        """Add a schedule, due from its next tick on. Adding the same again changes nothing.

        Args:
            name: Unique for this tenant: up to 100 of a-z, 0-9, ``.``, ``_`` and ``-``.
            action: A published action.
            params: Its arguments by name; the same at each tick.
            cron: Five fields, as ``0 3 * * 1-5``. Exactly one of this and `every`.
            every: Seconds, whole, 1 or more, or a timedelta; counted from 1970-01-01 00:00 UTC.
            zone: The time zone of `cron`; None is UTC.
            missed: For ticks of which a worker learns more than a minute late: ``skip``, ``latest`` or ``all``.
            user_id: On whose behalf.
            request_id: Chains the jobs of all ticks; None gives each tick a chain of its own.
            agent_id: Who decided.
            reasoning: Why; None says that it was this schedule.
            queue: The Celery queue; None is the action's own.
            priority: 0 (soonest) to 9 (last).

        Raises:
            InvalidSchedule: If it never fires or a field cannot be accepted; nothing was written.
            UnknownAction: If no worker has published the action.
            ScheduleExists: If there is one of that name that says something else.
            LedgerUnavailable: If Postgres is away. Adding it again is safe.
        """
        declaration = declare(
            name,
            action,
            params,
            cron=cron,
            every=every,
            zone=zone,
            missed=missed,
            user_id=user_id,
            request_id=request_id,
            agent_id=agent_id,
            reasoning=reasoning,
            queue=queue,
            priority=priority,
        )
        tenant, known = self._settings.tenant, self._catalogue.read()
        check_requests(declaration, lambda r: seal_by(known, r, tenant=tenant, queue=self._settings.queue))

        act = act_of(actor(), tenant, "add schedule", name, action=action)

        def add(connection: Connection) -> ScheduleRecord | None:
            declared = Declared(
                declaration=declaration,
                id=uuid4(),
                tenant=tenant,
                declared_by="person",
                declared_in=None,
                next_tick=declaration.rule.after(ledger.database_now(connection)),
            )
            on_record(connection, act, lambda: ledger.add(connection, declared))
            return ledger.schedule_by_name(connection, tenant, name)

        record = self._found(name, self._read(add))
        differing = _differing(record, declaration)
        if differing:
            raise ScheduleExists(name, differing)
        return record

    def get(self, name: str) -> ScheduleRecord:
        """Return a schedule as it stands.

        Raises:
            ScheduleNotFound: If this tenant has none of that name.
            InvalidRequest: If that cannot be a name, as for the other look-ups.
        """
        _check(name)
        return self._found(name, self._read(lambda c: ledger.schedule_by_name(c, self._settings.tenant, name)))

    def list(self) -> Sequence[ScheduleRecord]:
        """Return this tenant's schedules, by name."""
        found: list[ScheduleRecord] = self._read(lambda c: ledger.schedules_of(c, self._settings.tenant))
        return found

    def pause(self, name: str, *, reason: str | None = None) -> ScheduleRecord:
        """Have a schedule make no more jobs until it is resumed, whatever code declares meanwhile.

        Raises:
            ScheduleNotFound: If this tenant has none of that name.
        """
        _check(name)
        self._act("pause schedule", name, reason, lambda c: ledger.pause(c, self._settings.tenant, name))
        return self.get(name)

    def resume(self, name: str, *, reason: str | None = None) -> ScheduleRecord:
        """Have a paused schedule go on at its next tick; those of its pause are not missed ones.

        Raises:
            ScheduleNotFound: If this tenant has none of that name.
            InvalidSchedule: If it has no tick any more.
        """
        rule = self.get(name).rule
        tenant = self._settings.tenant

        def go_on(connection: Connection) -> bool:
            next_tick = rule.after(ledger.database_now(connection))
            return ledger.resume(connection, tenant, name, next_tick=next_tick)

        self._act("resume schedule", name, reason, go_on)
        return self.get(name)

    def remove(self, name: str, *, reason: str | None = None) -> ScheduleRecord:
        """Remove a schedule and return it as it stood; its jobs stay. Code that declares it does so again at a start.

        Raises:
            ScheduleNotFound: If this tenant has none of that name.
        """
        record = self.get(name)
        self._act("remove schedule", name, reason, lambda c: ledger.remove(c, self._settings.tenant, name))
        return record

    def next_ticks(self, name: str, count: int) -> Sequence[datetime]:
        """Return the next `count` ticks of a schedule, in UTC, as if it were not paused.

        Raises:
            ScheduleNotFound: If this tenant has none of that name.
        """
        rule = self.get(name).rule
        now: datetime = self._read(ledger.database_now)
        return [*islice(rule.from_(now), count)]

    def _act(self, word: str, name: str, reason: str | None, work: Callable[[Connection], bool]) -> None:
        check_reason(reason)
        act = act_of(actor(), self._settings.tenant, word, name, reason=reason)
        self._read(lambda c: on_record(c, act, lambda: work(c)))

    def _found(self, name: str, record: ScheduleRecord | None) -> ScheduleRecord:
        if record is not None:
            return record
        names = self._read(lambda c: ledger.names_of(c, self._settings.tenant))
        near = get_close_matches(str(name), names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}" if names else ""
        raise ScheduleNotFound(f"there is no schedule {shown(name)}{hint}")


def _check(name: object) -> None:
    """Refuse what Postgres cannot be asked for."""
    if name is None:
        raise InvalidRequest("name", "is missing")
    check_name("name", name, NAME_LIMIT)


def _differing(record: ScheduleRecord, declaration: Declaration) -> list[str]:
    found = [
        name
        for name in Declaration.__dataclass_fields__
        if name not in ("rule", "version") and getattr(record, name) != getattr(declaration, name)
    ]
    rule = [name for name in ("cron", "every", "zone") if getattr(record.rule, name) != getattr(declaration.rule, name)]
    return found + rule

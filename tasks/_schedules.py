"""The schedules that this process's code declares."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from producer.declaration import Declaration, Missed, declare
from producer.envelope import DEFAULT_PRIORITY
from producer.errors import InvalidRequest, InvalidSchedule
from producer.ledger.reads import PublishedAction
from producer.schema import check_params
from tasks._spec import ActionSpec


@dataclass(frozen=True, slots=True)
class DeclaredSchedule:
    """A schedule and the module that declares it."""

    declaration: Declaration
    module: str


_schedules: dict[str, DeclaredSchedule] = {}


def schedule(
    name: str,
    *,
    action: str,
    params: Any = None,
    cron: str | None = None,
    every: int | timedelta | None = None,
    zone: str | None = None,
    missed: Missed = "latest",
    version: int = 1,
    user_id: str | None = None,
    request_id: str | None = None,
    agent_id: str | None = None,
    reasoning: str | None = None,
    queue: str | None = None,
    priority: int = DEFAULT_PRIORITY,
) -> None:
    """Declare that an action is to be done at fixed times. Workers publish it when they start.

    Args:
        name: Unique for its tenant: up to 100 of a-z, 0-9, ``.``, ``_`` and ``-``.
        action: What is asked for at each tick.
        params: Its arguments by name; the same at each tick.
        cron: Five fields, as ``0 3 * * 1-5``. Exactly one of this and `every`.
        every: Seconds, whole, 1 or more, or a timedelta; counted from 1970-01-01 00:00 UTC.
        zone: The time zone of `cron`; None is UTC.
        missed: For ticks of which a worker learns more than a minute late: ``skip`` passes over them, ``latest`` asks
            once for the last of them, ``all`` for each.
        version: Raise it with a change, so that a worker of older code that starts later does not undo it.
        user_id: On whose behalf.
        request_id: Chains the jobs of all ticks; None gives each tick a chain of its own.
        agent_id: Who decided.
        reasoning: Why; None says that it was this schedule.
        queue: The Celery queue; None is the action's own.
        priority: 0 (soonest) to 9 (last).

    Raises:
        InvalidSchedule: When the module is imported, if the schedule never fires or cannot be accepted.

    Example:
        >>> schedule("nightly.report", action="report.send", cron="0 3 * * *", zone="Europe/Berlin")
    """
    module = sys._getframe(1).f_globals.get("__name__", "__main__")  # noqa: SLF001  there is no function to ask
    try:
        declaration = declare(
            name,
            action,
            params,
            cron=cron,
            every=every,
            zone=zone,
            missed=missed,
            version=version,
            user_id=user_id,
            request_id=request_id,
            agent_id=agent_id,
            reasoning=reasoning,
            queue=queue,
            priority=priority,
        )
    except InvalidSchedule as error:
        raise _placed(error, name, module) from error
    other = _schedules.get(name)
    if other is not None and other.module != module:
        raise InvalidSchedule("name", f"{name!r} is declared twice: in {other.module} and in {module}")
    _schedules[name] = DeclaredSchedule(declaration, module)


def declared_schedules() -> Mapping[str, DeclaredSchedule]:
    """Return every schedule that modules imported so far declare, by name."""
    return MappingProxyType(_schedules)


def check_schedules(actions: Mapping[str, ActionSpec]) -> None:
    """Refuse a schedule whose params do not fit its action, where that is one of this process's.

    Another worker may have the action; then each tick says what is wrong.

    Raises:
        InvalidSchedule: For the first such schedule.
    """
    for name, declared in _schedules.items():
        spec = actions.get(declared.declaration.action)
        if spec is None:
            continue
        try:
            check_params(_as_published(spec), declared.declaration.params)
        except InvalidRequest as error:
            raise _placed(error, name, declared.module) from error


def _placed(error: InvalidRequest, name: object, module: str) -> InvalidSchedule:
    return InvalidSchedule(error.where, f"{error.problem} (schedule {name!r} in {module})")


def _as_published(spec: ActionSpec) -> PublishedAction:
    """Return as much of an action as its params can be held to."""
    return PublishedAction(
        name=spec.name,
        version=spec.version,
        effect="",
        queue=spec.queue,
        description=spec.description,
        params_schema=spec.params.json_schema(),
        result_schema={},
        policy={},
        published_at=datetime.now(UTC),
    )

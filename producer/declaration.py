"""What a schedule is, whether a person adds it or code declares it, and the request that each of its ticks makes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from producer.canonical import shown
from producer.envelope import DEFAULT_PRIORITY, Envelope, Request, seal
from producer.errors import InvalidRequest, InvalidSchedule
from producer.ticks import Rule, make_rule, spelled

__all__ = ["MISSED", "Declaration", "Missed", "check_requests", "declare", "request_of"]

Missed = Literal["skip", "latest", "all"]
MISSED: tuple[Missed, ...] = ("skip", "latest", "all")

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?")
SOME_TICK = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A schedule as it was declared; made by `declare`, which checks it.

    Attributes:
        name: Unique for its tenant; part of its ticks' idempotency keys.
        action: What is asked for at each tick.
        params: The action's arguments by name, plain JSON; the same at each tick.
        rule: When it is due.
        missed: What becomes of ticks that no worker looked for in time: ``skip`` passes over them, ``latest`` asks once
            for the last of them, ``all`` for each.
        request_id: Chains the jobs of all ticks; None gives each tick a chain of its own.
        agent_id: As in a request, as for the rest; `reasoning` by default says that it was this schedule.
        version: Where code declares it: an older version never replaces a newer one.
    """

    name: str
    action: str
    params: dict[str, Any] = field(default_factory=dict)
    rule: Rule
    missed: Missed = "latest"
    request_id: str | None = None
    agent_id: str | None = None
    user_id: str | None = None
    reasoning: str | None = None
    queue: str | None = None
    priority: int = DEFAULT_PRIORITY
    version: int = 1


def declare(
    name: str,
    action: str,
    params: Any = None,
    *,
    cron: str | None,
    every: Any,
    zone: str | None,
    missed: str,
    **fields: Any,
) -> Declaration:
    """Check a schedule as far as that goes without knowing the action. Arguments as `Declaration` has them.

    Raises:
        InvalidSchedule: Naming the field, what is wrong with it and what to do.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidSchedule(
            "name", f"{shown(name)} is not a schedule's name; write up to 100 of a-z, 0-9, . _ and -, as nightly.report"
        )
    if missed not in MISSED:
        raise InvalidSchedule("missed", f"{shown(missed)} is not {', '.join(MISSED)}")
    version = fields.get("version", 1)
    if type(version) is not int or version < 1:
        raise InvalidSchedule("version", f"{shown(version)} is not a whole number, 1 or more")
    made = Declaration(
        name=name,
        action=action,
        params={} if params is None else params,
        rule=make_rule(cron=cron, every=every, zone=zone),
        missed=missed,
        **fields,
    )
    sealed = check_requests(
        made, lambda request: seal(request, tenant="", version=1, queue="", now=SOME_TICK, new_id=lambda: UUID(int=0))
    )
    return replace(made, params=json.loads(sealed.params))  # plain JSON, whatever was given


def check_requests(declaration: Declaration, seal_one: Callable[[Request], Envelope]) -> Envelope:
    """Return what `seal_one` makes of a tick's request: what it refuses would be refused at each tick.

    Raises:
        InvalidSchedule: If a field of the request cannot be accepted.
        UnknownAction: If `seal_one` does.
    """
    try:
        return seal_one(request_of(declaration, SOME_TICK))
    except InvalidRequest as error:
        raise InvalidSchedule(error.where, error.problem) from error


def request_of(schedule: Declaration, tick: datetime) -> Request:
    """Return what is asked for at a tick: the same whoever makes it, and under a key that only this tick has."""
    key = f"schedule:{schedule.name}:{spelled(tick)}"
    rule = schedule.rule
    due = f"{rule.cron} {rule.zone}" if rule.cron is not None else f"every {rule.every} s"
    return Request(
        action=schedule.action,
        params=schedule.params,
        idempotency_key=key,
        user_id=schedule.user_id,
        request_id=schedule.request_id or key,
        agent_id=schedule.agent_id,
        input={"schedule": schedule.name, "tick": spelled(tick)},
        reasoning=schedule.reasoning if schedule.reasoning is not None else f"schedule {schedule.name}: {due}",
        priority=schedule.priority,
        queue=schedule.queue,
    )

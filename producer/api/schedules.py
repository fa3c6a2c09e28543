"""Schedules over HTTP: adding, seeing, pausing and removing them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from producer.api.access import Enqueuer, Operator, Reader
from producer.api.document import PROBLEMS
from producer.api.shapes import ScheduleBody, Schedules, ScheduleView, Ticks
from producer.api.strict import StrictRoute

Reason = Annotated[str | None, Query(description="For the record.")]

router = APIRouter(prefix="/v1/schedules", route_class=StrictRoute, responses=PROBLEMS, tags=["schedules"])


@router.get("")
def schedules(caller: Reader) -> Schedules:
    """List the tenant's schedules, by name."""
    return Schedules(schedules=[ScheduleView.of(record) for record in caller.producer.schedules.list()])


@router.post("", status_code=201)
def add_schedule(body: ScheduleBody, caller: Enqueuer) -> ScheduleView:
    """Add a schedule, due from its next tick on. Adding the same again changes nothing."""
    return ScheduleView.of(caller.producer.schedules.add(**body.model_dump()))


@router.get("/{name}")
def schedule(name: str, caller: Reader) -> ScheduleView:
    """Return one of them."""
    return ScheduleView.of(caller.producer.schedules.get(name))


@router.get("/{name}/ticks")
def schedule_ticks(name: str, caller: Reader, count: Annotated[int, Query(ge=1, le=1_000)] = 10) -> Ticks:
    """Return its next ticks, in UTC, as if it were not paused."""
    found: list[datetime] = list(caller.producer.schedules.next_ticks(name, count))
    return Ticks(ticks=found)


@router.post("/{name}/pause")
def pause_schedule(name: str, caller: Operator, reason: Reason = None) -> ScheduleView:
    """Have it make no more jobs until it is resumed."""
    return ScheduleView.of(caller.producer.schedules.pause(name, reason=reason))


@router.post("/{name}/resume")
def resume_schedule(name: str, caller: Operator, reason: Reason = None) -> ScheduleView:
    """Have it go on at its next tick; those of its pause are not missed ones."""
    return ScheduleView.of(caller.producer.schedules.resume(name, reason=reason))


@router.delete("/{name}")
def remove_schedule(name: str, caller: Operator, reason: Reason = None) -> ScheduleView:
    """Remove it, and return it as it stood; its jobs stay."""
    return ScheduleView.of(caller.producer.schedules.remove(name, reason=reason))

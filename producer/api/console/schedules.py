"""Schedules: what is due when, and a pause."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from producer.api.console.entry import ConsoleRoute, Form, Looker, Operating, back, text_of
from producer.api.console.page import page

TICKS = 5

router = APIRouter(prefix="/console", route_class=ConsoleRoute, include_in_schema=False)


@router.get("/schedules")
def schedules(request: Request, visitor: Looker) -> Response:
    """List them all."""
    found = visitor.caller.producer.schedules.list()
    return page(request, visitor, "schedules.html", title="Schedules", schedules=found)


@router.get("/schedule")
def schedule(request: Request, visitor: Looker, name: Annotated[str, Query()], done: str = "") -> Response:
    """Show one, with its next ticks."""
    found = visitor.caller.producer.schedules
    record, ticks = found.get(name), found.next_ticks(name, TICKS)
    title = f"Schedule {name}"
    return page(request, visitor, "schedule.html", title=title, schedule=record, ticks=list(ticks), done=done)


@router.post("/schedules/pause")
def pause(form: Form, visitor: Operating) -> Response:
    """Have one make no more jobs."""
    name = text_of(form, "name")
    visitor.caller.producer.schedules.pause(name)
    return back("/schedule", name=name, done="paused")


@router.post("/schedules/resume")
def resume(form: Form, visitor: Operating) -> Response:
    """Have it go on."""
    name = text_of(form, "name")
    visitor.caller.producer.schedules.resume(name)
    return back("/schedule", name=name, done="resumed")

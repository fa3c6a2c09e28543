"""All of the console's pages, in the order in which addresses are looked for."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from producer.api.console import (
    actions,
    acts,
    approvals,
    assets,
    breakers,
    budgets,
    conversations,
    entry,
    jobs,
    keys,
    overview,
    policies,
    record,
    schedules,
)
from producer.api.console.entry import ConsoleRoute, Looker
from producer.api.console.page import link
from producer.api.problems import Problem
from producer.canonical import shown

rest = APIRouter(route_class=ConsoleRoute, include_in_schema=False)


@rest.get("/")
async def front() -> Response:
    """Show people the way: whoever opens the API in a browser looks for this."""
    return RedirectResponse(link(""))


@rest.get("/console/{path:path}")
async def nowhere(_visitor: Looker, path: str) -> Response:
    """Say that there is no such page, as a page."""
    raise Problem("not-found", f"there is no page {shown(path)}")


ROUTERS: tuple[APIRouter, ...] = (
    assets.router,
    *(part.router for part in (entry, overview, jobs, acts, approvals, schedules, conversations)),
    *(part.router for part in (actions, policies, record, budgets, breakers, keys)),
    rest,
)

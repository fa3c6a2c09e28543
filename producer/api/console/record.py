"""The acts: who did what, when, from where and why."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from producer.api.console.entry import ConsoleRoute, Looker
from producer.api.console.page import link, page
from producer.jobs import NUMBER_LIMIT
from producer.ledger.acts import WORDS, ActRecord

PAGE = 50
AGES: Mapping[str, timedelta] = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "month": timedelta(days=30),
}

router = APIRouter(prefix="/console", route_class=ConsoleRoute, include_in_schema=False)


@router.get("/acts")
def acts(
    request: Request,
    visitor: Looker,
    act: str = "",
    who: str = "",
    job: Annotated[UUID | None, Query()] = None,
    age: str = "",
    cursor: Annotated[int | None, Query(ge=1, lt=NUMBER_LIMIT)] = None,
) -> Response:
    """List them, the newest first."""
    since = datetime.now(UTC) - AGES[age] if age in AGES else None
    found = visitor.caller.producer.acts(
        since=since, before=cursor, act=act.strip() or None, who=who.strip() or None, job_id=job, limit=PAGE
    )
    return page(
        request,
        visitor,
        "acts.html",
        title="Acts",
        acts=[(each, target_of(each)) for each in found],
        words=WORDS,
        ages=list(AGES),
        sought={"act": act.strip(), "who": who.strip(), "job": job, "age": age if age in AGES else ""},
        next=found[-1].n if len(found) == PAGE else None,
        cursor=cursor,
    )


def target_of(act: ActRecord) -> str:
    """Return the page of what something was done to; empty where it has none."""
    if act.job_id is not None:
        return link(f"/jobs/{act.job_id}")
    pages = {"breaker": "/breaker", "budget": "/budget", "schedule": "/schedule"}
    kind = act.act.rpartition(" ")[2]
    # What was removed has no page any more, which that page says.
    return link(pages[kind], name=act.target) if kind in pages else ""

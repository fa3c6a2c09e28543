"""Breakers over HTTP. They are the whole fleet's, every tenant's, so they take the scope ``admin``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from producer.api.access import Admin
from producer.api.document import PROBLEMS
from producer.api.shapes import BreakerHistory, Breakers, ForceBody, TransitionView
from producer.api.strict import StrictRoute
from producer.breakers import BreakerRecord

router = APIRouter(prefix="/v1/breakers", route_class=StrictRoute, responses=PROBLEMS, tags=["breakers"])


@router.get("")
def breakers(caller: Admin) -> Breakers:
    """List every breaker of which anything is known, and how it stands."""
    return Breakers(breakers=list(caller.producer.breakers.list()))


@router.get("/history")
def breaker_history(
    caller: Admin,
    name: Annotated[str, Query(description="The breaker's; names may hold spaces.")],
    limit: Annotated[int, Query(ge=1, le=1_000)] = 50,
) -> BreakerHistory:
    """Return a breaker's latest transitions, the newest first."""
    found = caller.producer.breakers.history(name, limit=limit)
    return BreakerHistory(transitions=[TransitionView.model_validate(each) for each in found])


@router.post("/force")
def force_breaker(body: ForceBody, caller: Admin) -> BreakerRecord:
    """Override a breaker for the whole fleet, or take that back."""
    return caller.producer.breakers.force(
        body.name, body.word, reason=body.reason, seconds=body.seconds, who=caller.who, new=body.new
    )

"""Budgets: what of each share is spent, reserved and left, and, for whoever may, other ceilings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from producer.api.console.entry import Administering, ConsoleRoute, Form, Looker, back, text_of
from producer.api.console.page import page
from producer.budget_words import UNITS
from producer.errors import InvalidRequest

LIVE_SECONDS = 5
SHOWN = 200

router = APIRouter(prefix="/console", route_class=ConsoleRoute, include_in_schema=False)


@router.get("/budgets")
def budgets(request: Request, visitor: Looker) -> Response:
    """Show every share, those first of which most is spent."""
    shares = visitor.caller.producer.budgets(limit=SHOWN)
    return page(
        request, visitor, "budgets.html", title="Budgets", live_seconds=LIVE_SECONDS, shares=shares, units=UNITS
    )


@router.get("/budget")
def budget(request: Request, visitor: Looker, name: Annotated[str, Query()], done: str = "") -> Response:
    """Show one, with its shares."""
    producer = visitor.caller.producer
    return page(
        request,
        visitor,
        "budget.html",
        title=f"Budget {name}",
        live_seconds=LIVE_SECONDS,
        budget=producer.budgets.get(name),
        shares=producer.budgets(name, limit=SHOWN),
        units=UNITS,
        done=done,
    )


@router.post("/budgets/set")
def set_(form: Form, visitor: Administering) -> Response:
    """Put other ceilings in force."""
    name, reason = text_of(form, "name"), text_of(form, "reason")
    visitor.caller.producer.budgets.set(name, reason=reason, who=visitor.caller.who, **_ceilings(form))
    return back("/budget", name=name, done="set")


@router.post("/budgets/reset")
def reset(form: Form, visitor: Administering) -> Response:
    """Put the declared ceilings in force again."""
    name, reason = text_of(form, "name"), text_of(form, "reason")
    visitor.caller.producer.budgets.reset(name, reason=reason, who=visitor.caller.who)
    return back("/budget", name=name, done="reset")


def _ceilings(form: Mapping[str, str]) -> dict[str, Any]:
    """Return the ceilings that a form has; an empty field takes one away."""
    given: dict[str, Any] = {"usd": form.get("usd", "").strip() or None}
    for unit in ("tokens", "calls"):
        said = form.get(unit, "").strip().replace(",", "")
        if said and not (said.isascii() and said.isdigit() and len(said) < 17):  # noqa: PLR2004  what the ledger holds
            raise InvalidRequest(unit, "is no whole number")
        given[unit] = int(said) if said else None
    return given

"""Breakers, which are the whole fleet's: how they stand, what they went through, and a word that overrides one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from producer.api.console.entry import Administering, ConsoleRoute, Form, back, text_of
from producer.api.console.page import page
from producer.breakers import WORDS
from producer.errors import InvalidRequest

LIVE_SECONDS = 4
SHOWN = 50

router = APIRouter(prefix="/console", route_class=ConsoleRoute, include_in_schema=False)


@router.get("/breakers")
def breakers(request: Request, visitor: Administering) -> Response:
    """List all of which anything is known."""
    found = visitor.caller.producer.breakers.list()
    return page(request, visitor, "breakers.html", title="Breakers", live_seconds=LIVE_SECONDS, breakers=found)


@router.get("/breaker")
def breaker(request: Request, visitor: Administering, name: Annotated[str, Query()], done: str = "") -> Response:
    """Show one, with what it went through."""
    found = visitor.caller.producer.breakers
    return page(
        request,
        visitor,
        "breaker.html",
        title=f"Breaker {name}",
        live_seconds=LIVE_SECONDS,
        breaker=found.get(name),
        history=found.history(name, limit=SHOWN),
        done=done,
    )


@router.post("/breakers/force")
def force(form: Form, visitor: Administering) -> Response:
    """Override one, or take that back."""
    name, word, minutes = text_of(form, "name"), form.get("word", ""), form.get("minutes", "").strip()
    if word not in WORDS:
        raise InvalidRequest("word", "choose what it shall do")
    visitor.caller.producer.breakers.force(
        name,
        word,
        reason=text_of(form, "reason"),
        seconds=_seconds(minutes) if word != "auto" else None,
        who=visitor.caller.who,
    )
    return back("/breaker", name=name, done=word)


def _seconds(minutes: str) -> float | None:
    try:
        return float(minutes) * 60 if minutes else None
    except ValueError as error:
        raise InvalidRequest("minutes", "is no number") from error

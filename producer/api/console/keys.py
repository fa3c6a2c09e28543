"""Keys and roles, for whoever may say who somebody is: made, shown once, ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from producer.api.console.entry import Administering, ConsoleRoute, Form, back, text_of
from producer.api.console.page import page
from producer.errors import InvalidRequest
from producer.keys import DEFAULT_RATE, SCOPES
from producer.ledger.keys import Scope

DAY_SECONDS = 86_400.0
LIVES: Mapping[str, float | None] = {"30": 30.0, "90": 90.0, "365": 365.0, "": None}
OVERLAPS: Mapping[str, float] = {"0": 0.0, "1": 1.0, "7": 7.0, "30": 30.0}
MEANING: Mapping[Scope, str] = {
    "enqueue": "ask for jobs, add schedules",
    "read": "see jobs, requests, the acts",
    "approve": "decide what waits for a person",
    "operate": "cancel, retry, resolve, undo, pause",
    "admin": "all of it, keys, budgets, breakers too",
}
# What no browser keeps, and no page behind it: a key is shown once.
NOBODYS = {"Cache-Control": "no-store"}

router = APIRouter(prefix="/console", route_class=ConsoleRoute, include_in_schema=False)


@router.get("/keys")
def keys(request: Request, visitor: Administering, done: str = "") -> Response:
    """List the tenant's keys, the newest first, and who has which role."""
    producer = visitor.caller.producer
    found = list(producer.keys.list())[::-1]
    return page(
        request,
        visitor,
        "keys.html",
        title="Keys and roles",
        keys=[key for key in found if key.standing == "active"],
        ended=[key for key in found if key.standing != "active"],
        grants=producer.roles.list(),
        meaning={scope: MEANING[scope] for scope in SCOPES},
        rate=f"{DEFAULT_RATE:g}",
        done=done,
    )


@router.post("/keys/create")
def create(request: Request, form: Form, visitor: Administering) -> Response:
    """Make a key, and show it: this once, and never again."""
    record, key = visitor.caller.producer.keys.create(
        text_of(form, "name"),
        [scope for scope in SCOPES if form.get(f"scope_{scope}")],
        seconds=_days(form, "days", LIVES),
        rate_per_second=_rate(form),
        who=visitor.caller.who,
        reason=_reason(form),
    )
    answer = page(request, visitor, "key.html", title="A new key", record=record, key=key)
    answer.headers.update(NOBODYS)
    return answer


@router.post("/keys/{key_id}/revoke")
def revoke(key_id: str, form: Form, visitor: Administering) -> Response:
    """End a key, at once or after an overlap."""
    later = _days(form, "days", OVERLAPS) or 0.0
    visitor.caller.producer.keys.revoke(key_id, in_seconds=later, who=visitor.caller.who, reason=_reason(form))
    return back("/keys", done="later" if later else "revoked")


@router.post("/roles/grant")
def grant(form: Form, visitor: Administering) -> Response:
    """Give somebody a role."""
    visitor.caller.producer.roles.grant(text_of(form, "role"), text_of(form, "person"), who=visitor.caller.who)
    return back("/keys", done="granted")


@router.post("/roles/revoke")
def take(form: Form, visitor: Administering) -> Response:
    """Take one from him; what he decided stands."""
    visitor.caller.producer.roles.revoke(text_of(form, "role"), text_of(form, "person"), who=visitor.caller.who)
    return back("/keys", done="taken")


def _days(form: Mapping[str, str], name: str, choices: Mapping[str, Any]) -> float | None:
    """Return how many seconds were chosen."""
    said = form.get(name, "")
    if said not in choices:
        raise InvalidRequest(name, "is none of those to choose from")
    days: float | None = choices[said]
    return None if days is None else days * DAY_SECONDS


def _rate(form: Mapping[str, str]) -> float:
    try:
        return float(form.get("rate", "").strip() or DEFAULT_RATE)
    except ValueError as error:
        raise InvalidRequest("rate", "is no number") from error


def _reason(form: Mapping[str, str]) -> str | None:
    return form.get("reason", "").strip() or None

"""Policies: what a worker has to have loaded to perform what they are asked about, until a person retires it."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from producer.api.console.entry import Administering, ConsoleRoute, Form, Looker, back, text_of
from producer.api.console.page import page

router = APIRouter(prefix="/console", route_class=ConsoleRoute, include_in_schema=False)


@router.get("/actions/policies")
def policies(request: Request, visitor: Looker, done: str = "") -> Response:
    """List those in force, with the published actions that each is asked about."""
    producer = visitor.caller.producer
    actions = producer.actions()
    found = [(each, [name for name in actions if each.matches(name)]) for each in producer.policies.list()]
    return page(request, visitor, "policies.html", title="Policies", policies=found, done=done)


@router.post("/actions/policies/retire")
def retire(form: Form, visitor: Administering) -> Response:
    """Have nobody need one any more."""
    name, reason = text_of(form, "name"), text_of(form, "reason")
    visitor.caller.producer.policies.retire(name, reason=reason, who=visitor.caller.who)
    return back("/actions/policies", done="retired")

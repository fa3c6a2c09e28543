"""A conversation, in order, and whose turn it is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from producer.api.console.entry import ConsoleRoute, Looker
from producer.api.console.page import page

LIVE_SECONDS = 4
MESSAGES = 200

router = APIRouter(prefix="/console", route_class=ConsoleRoute, include_in_schema=False)


@router.get("/conversation")
def conversation(request: Request, visitor: Looker, conversation_id: Annotated[str, Query(alias="id")]) -> Response:
    """Show its newest messages."""
    found = visitor.caller.producer.conversation(conversation_id, limit=MESSAGES)
    return page(
        request,
        visitor,
        "conversation.html",
        title=f"Conversation {conversation_id}",
        live_seconds=LIVE_SECONDS if found.turn_of else 0,
        conversation=found,
    )

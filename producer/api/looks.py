"""Looking at what belongs together: a request's chain, a conversation, the actions that there are."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from producer.api.access import Reader
from producer.api.document import PROBLEMS
from producer.api.problems import Problem
from producer.api.shapes import Actions, Acts, ActView, Chain, ConversationView, JobView
from producer.jobs import NUMBER_LIMIT
from producer.ledger.conversations import HISTORY_MESSAGES
from producer.ledger.reads import PublishedAction

router = APIRouter(prefix="/v1", responses=PROBLEMS, tags=["looks"])


@router.get("/requests/{request_id:path}/chain")
def chain(request_id: str, caller: Reader) -> Chain:
    """Return every decision that was made for one request, in order."""
    found = caller.producer.chain(request_id)
    if not found:
        raise Problem("not-found", "no decision was made for that request")
    return Chain(request_id=request_id, jobs=[JobView.model_validate(record) for record in found])


@router.get("/conversations/{conversation_id:path}")
def conversation(
    conversation_id: str, caller: Reader, limit: Annotated[int, Query(ge=1, le=10_000)] = HISTORY_MESSAGES
) -> ConversationView:
    """Return the newest messages of a conversation, in order, and whose turn it is."""
    return ConversationView.model_validate(caller.producer.conversation(conversation_id, limit=limit))


@router.get("/acts")
def acts(
    caller: Reader,
    since: Annotated[AwareDatetime | None, Query(description="Those from then on.")] = None,
    act: Annotated[str | None, Query(description="Of one kind, such as cancel.")] = None,
    who: Annotated[str | None, Query(description="The name in full, or without the key by which he came.")] = None,
    job_id: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    cursor: Annotated[int | None, Query(ge=1, lt=NUMBER_LIMIT, description="The `next` of the page before.")] = None,
) -> Acts:
    """Return what people did, to jobs and beside, the newest first."""
    found = caller.producer.acts(since=since, before=cursor, act=act, who=who, job_id=job_id, limit=limit)
    views = [ActView.model_validate(each) for each in found]
    return Acts(acts=views, next=found[-1].n if len(found) == limit else None)


@router.get("/actions")
def actions(caller: Reader) -> Actions:
    """Return the actions that workers have published, with the schemas of their params and results."""
    return Actions(actions=list(caller.producer.actions().values()))


@router.get("/actions/{name}")
def action(name: str, caller: Reader) -> PublishedAction:
    """Return one of them."""
    found = caller.producer.actions().get(name)
    if found is None:
        raise Problem("not-found", "no worker has published that action")
    return found

"""What changes, as it changes: server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import TypeAdapter

from producer.api.access import Caller, Reader
from producer.api.document import PROBLEMS
from producer.api.jobs import JobId
from producer.api.shapes import JobView
from producer.ledger.reads import Event

LOOK_SECONDS = 1.0
# A comment so often, or what stands in between takes the line for dead.
SILENT_LOOKS = 15

_EVENT = TypeAdapter(Event)

router = APIRouter(prefix="/v1", responses=PROBLEMS, tags=["live"])


@router.get("/jobs/{job_id}/live", response_class=StreamingResponse)
async def live(
    job_id: JobId,
    caller: Reader,
    request: Request,
    last: Annotated[str | None, Header(alias="Last-Event-ID", description="Goes on after this line.")] = None,
) -> StreamingResponse:
    """Stream a job's history as it is written; the last event, ``rest``, is the job as it came to rest.

    Each event's id is its ``seq``: who is cut off goes on where he was, by ``Last-Event-ID``.
    """
    await run_in_threadpool(caller.producer.job, job_id)  # not found is said before anything else
    seen = int(last) if last is not None and last.isdigit() and len(last) < 10 else 0  # noqa: PLR2004  seq is an int
    return StreamingResponse(_lines(request, caller, job_id, seen), media_type="text/event-stream")


async def _lines(request: Request, caller: Caller, job_id: Any, seen: int) -> AsyncIterator[str]:
    silent, stopping = 0, request.app.state.stopping
    yield "retry: 2000\n\n"
    while not stopping.begun and not await request.is_disconnected():
        with caller.producer.waiting.news_of(job_id) as news:
            job = await run_in_threadpool(caller.producer.job, job_id)
            events = await run_in_threadpool(caller.producer.events, job_id)
            for event in events:
                if event.seq > seen:
                    seen, silent = event.seq, 0
                    yield _event("event", _EVENT.dump_json(event).decode(), seen)
            if job.record.is_at_rest:
                yield _event("rest", JobView.model_validate(job.record).model_dump_json(), seen)
                return
            await stopping.first_of(news, seconds=LOOK_SECONDS)
        silent += 1
        if silent >= SILENT_LOOKS:
            silent = 0
            yield ": still here\n\n"


def _event(kind: str, data: str, seq: int) -> str:
    # JSON has no line breaks of its own, so one line holds it all.
    return f"event: {kind}\nid: {seq}\ndata: {data}\n\n"

"""What somebody does to a job: cancels it, has it tried again, says what became of it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response

from producer.api.console.entry import ConsoleRoute, Form, Operating, back, text_of
from producer.canonical import parse_json
from producer.errors import InvalidRequest
from producer.ledger.resolve import BECOMES

router = APIRouter(prefix="/console/jobs", route_class=ConsoleRoute, include_in_schema=False)


@router.post("/{job_id}/cancel")
def cancel(job_id: UUID, form: Form, visitor: Operating) -> Response:
    """Cancel it, or ask its worker to."""
    answer = visitor.caller.producer.job(job_id).cancel(form.get("reason", "").strip() or None)
    return back(f"/jobs/{job_id}", done=f"cancel-{answer}")


@router.post("/{job_id}/retry")
def retry(job_id: UUID, form: Form, visitor: Operating) -> Response:
    """Give it one more attempt."""
    visitor.caller.producer.retry(job_id, reason=text_of(form, "reason"), who=visitor.caller.who)
    return back(f"/jobs/{job_id}", done="retried")


@router.post("/{job_id}/resolve")
def resolve(job_id: UUID, form: Form, visitor: Operating) -> Response:
    """Say what became of it."""
    verdict = form.get("verdict", "")
    if verdict not in BECOMES:
        raise InvalidRequest("verdict", "choose what became of it")
    result: Any = None
    if verdict == "happened" and form.get("result", "").strip():
        result = parse_json(form["result"].encode(), where="result")
    visitor.caller.producer.resolve(
        job_id, verdict, reason=text_of(form, "reason"), result=result, who=visitor.caller.who
    )
    return back(f"/jobs/{job_id}", done="resolved")


@router.post("/{job_id}/undo")
def undo(job_id: UUID, form: Form, visitor: Operating) -> Response:
    """Have it taken back, and show the job that does."""
    made = visitor.caller.producer.undo(job_id, reason=text_of(form, "reason"), who=visitor.caller.who)
    return back(f"/jobs/{made.id}", done="undoing")

"""Why a job ran, or why it does not, over HTTP: by its id, its key or its request."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from producer.api.access import Reader
from producer.api.document import PROBLEMS
from producer.api.jobs import JobId
from producer.api.problems import Problem
from producer.api.shapes import Explanations
from producer.explain import Explanation

router = APIRouter(prefix="/v1", responses=PROBLEMS, tags=["explain"])


@router.get("/jobs/by-key/explain")
def explain_key(
    caller: Reader,
    idempotency_key: str,
    action: Annotated[str | None, Query(description="Of this action alone.")] = None,
) -> Explanations:
    """Explain the jobs that a key stands for, those of one action, the newest first."""
    found = caller.producer.explain_key(idempotency_key, action=action)
    if not found:
        raise Problem("not-found", "no job has that key")
    return Explanations(explanations=found)


@router.get("/jobs/{job_id}/explain")
def explain(job_id: JobId, caller: Reader) -> Explanation:
    """Say why a job ran, or why it does not: the answer, how it came to that, and what to do next."""
    return caller.producer.explain(job_id)


@router.get("/requests/{request_id:path}/explain")
def explain_request(request_id: str, caller: Reader) -> Explanations:
    """Explain every decision that was made for one request, in order."""
    found = caller.producer.explain_request(request_id)
    if not found:
        raise Problem("not-found", "no decision was made for that request")
    return Explanations(explanations=found)

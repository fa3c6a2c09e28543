"""The job that a degraded one leaves behind, so that a true result may still come: ``supersede=`` of the action."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from producer.envelope import Envelope, Request, seal
from producer.ledger.superseding import true_result_key
from producer.sealing import new_id
from producer.spans import asked_within
from tasks import ActionSpec
from worker.attempt import Attempt


def true_result(spec: ActionSpec, attempt: Attempt, *, deadline_left: float | None) -> Envelope | None:
    """Return the job that asks for the same once more, later; it is accepted with the degraded outcome.

    Its key is of that job's, so a repeat of the outcome accepts it once. It leaves none behind itself.

    Args:
        spec: The action.
        attempt: At the job that is degraded.
        deadline_left: Seconds until its deadline, which is the new one's too; None where it has none.

    Returns:
        None where the action wants none, or the deadline leaves it no time.
    """
    after = spec.supersede_after
    if after is None or attempt.supersedes is not None or (deadline_left is not None and deadline_left <= after):
        return None
    now = datetime.now(UTC)
    request = Request(
        action=spec.name,
        params=attempt.params,
        idempotency_key=true_result_key(attempt.job_id),
        user_id=attempt.user_id,
        request_id=attempt.request_id,
        agent_id=attempt.agent_id,
        reasoning=f"a fallback stands in for the result of job {attempt.job_id}: this is for the true one",
        trace=asked_within(spec.name, attempt.traceparent),
        run_at=now + timedelta(seconds=after),
        deadline=None if deadline_left is None else now + timedelta(seconds=deadline_left),
        priority=attempt.priority,
    )
    return seal(
        request,
        tenant=attempt.tenant,
        version=spec.version,
        queue=attempt.queue,
        now=now,
        new_id=new_id,
        parent_job_id=attempt.job_id,
    )

"""A job that waits for people, put there as a worker puts it, without one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from producer import Approval, Producer, State
from producer.job import Job
from producer.ledger.deciding import Asked
from producer.sealing import new_id
from tests.integration.test_statements import intent, writer_of
from worker.approval_sweep import sweep_approvals
from worker.attempt import Attempt, Intent, Settlement
from worker.policy_statements import Review, Reviewed, intend_approved, review
from worker.settle_with import settle_with
from worker.statements import Granted

WHY = "it is what we agreed on"


def asked_of(job_id: UUID, **fields: Any) -> Asked:
    """What a policy asks: one of three people, within a minute, unless told otherwise."""
    given: dict[str, Any] = {
        "id": new_id(),
        "job_id": job_id,
        "rule": "large_sums",
        "rule_version": 1,
        "reason": "100 or more",
        "approvers": ("ben", "eve", "kim"),
        "roles": (),
        "quorum": 1,
        "expires_seconds": 60.0,
        "valid_seconds": 60.0,
        "escalate_seconds": None,
        "escalate_to": (),
        "escalate_roles": (),
        "preview": None,
        "preview_error": None,
    }
    return Asked(**given | fields)


def enqueued(producer: Producer, **fields: Any) -> Job:
    """A request by ada, whose agent is bot."""
    given: dict[str, Any] = {"params": {"a": 1, "b": 2}, "user_id": "ada", "agent_id": "bot"}
    return producer.enqueue("test.add", **given | fields)


def claim(engine: Engine, job: Job, *, worker: str = "w1") -> Attempt:
    """Own the job."""
    (attempt,) = writer_of(engine, worker).claim("test.add", 1, [job.id])
    return attempt


def park(engine: Engine, attempt: Attempt, asked: Asked, *, worker: str = "w1") -> None:
    """Have people asked about a claimed job."""
    settlement = Settlement(
        job_id=attempt.job_id,
        fence=attempt.fence,
        attempt=attempt.number,
        was=State.CLAIMED,
        becomes=State.AWAITING_APPROVAL,
        kind="approval_requested",
        asks=asked,
    )
    with engine.connect() as connection:
        answers = settle_with(connection, worker, [settlement], on_accepted=lambda _: None)
    assert answers == {attempt.job_id: "settled"}


def waiting(engine: Engine, producer: Producer, *, job: Job | None = None, **fields: Any) -> Approval:
    """A job for which people are asked, and what they are asked."""
    found = enqueued(producer) if job is None else job
    park(engine, claim(engine, found), asked_of(found.id, **fields))
    return producer.approvals.of_job(found.id)[-1]


def reviewed(engine: Engine, attempt: Attempt, *notes: dict[str, Any], worker: str = "w1") -> Reviewed | None:
    """What a worker finds for a job that it has claimed."""
    asked = Review(job_id=attempt.job_id, fence=attempt.fence, attempt=attempt.number, notes=notes)
    with engine.connect() as connection:
        return review(connection, worker, [asked]).get(attempt.job_id)


def begin(engine: Engine, attempt: Attempt, *approvals: UUID, worker: str = "w1") -> Granted:
    """Commit the intent that rests on approvals."""
    wanted: Intent = replace(intent(attempt, "keyed", 3_600.0), approvals=approvals)
    with engine.connect() as connection:
        return intend_approved(connection, worker, 30.0, [wanted]).get(attempt.job_id, "lost")


def approve(producer: Producer, approval: Any, by: str = "ben", **fields: Any) -> Any:
    return producer.approvals.approve(approval.id, **{"digest": approval.digest, "by": by, "reason": WHY} | fields)


def reject(producer: Producer, approval: Any, by: str = "ben", **fields: Any) -> Any:
    return producer.approvals.reject(approval.id, **{"digest": approval.digest, "by": by, "reason": WHY} | fields)


def sweep(engine: Engine) -> int:
    with engine.connect() as connection:
        return sweep_approvals(connection, worker="w9")


def overdue(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("UPDATE approvals SET expires_at = clock_timestamp() - interval '1 s'"))


def kinds(job: Job) -> list[str]:
    return [event.kind for event in job.events]


def job_of(producer: Producer, approval: Any) -> Job:
    return producer.job(approval.job_id)

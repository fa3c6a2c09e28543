"""What ends the wait for people without their word: time, and whoever asked. And what time does before it ends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from producer import ApprovalClosed, ApprovalState, Producer, State
from tests.integration.approving import (
    approve,
    asked_of,
    begin,
    claim,
    enqueued,
    job_of,
    kinds,
    overdue,
    park,
    sweep,
    waiting,
)


def test_what_nobody_decided_in_time_is_expired_by_nobody_and_cannot_be_approved_any_more(
    engine: Engine, lone_producer: Producer
) -> None:
    approval = waiting(engine, lone_producer)
    assert sweep(engine) == 0
    overdue(engine)
    with pytest.raises(ApprovalClosed, match="is expired: nobody decided in time"):
        approve(lone_producer, approval)
    assert sweep(engine) == 1
    assert sweep(engine) == 0
    expired, job = lone_producer.approvals.get(approval.id), job_of(lone_producer, approval)
    assert (expired.state, expired.decided_by, expired.decided_why) == (
        ApprovalState.EXPIRED,
        None,
        "nobody decided in time",
    )
    assert (job.state, kinds(job)[-1], job.events[-1].worker) == (State.EXPIRED, "approval_expired", "w9")
    assert "who" not in (job.events[-1].data or {})
    with pytest.raises(ApprovalClosed, match="is expired"):
        approve(lone_producer, approval)


def test_the_job_s_own_deadline_ends_the_wait_and_says_so(engine: Engine, lone_producer: Producer) -> None:
    job = enqueued(lone_producer, deadline=datetime.now(UTC) + timedelta(seconds=30))
    approval = waiting(engine, lone_producer, job=job)
    assert approval.expires_at == job.record.deadline_at
    with engine.connect() as connection:
        past = "clock_timestamp() - interval '1 s'"
        connection.execute(text(f"UPDATE jobs SET deadline_at = {past}"))
        connection.execute(text("UPDATE approvals SET expires_at = (SELECT deadline_at FROM jobs)"))
    assert sweep(engine) == 1
    assert dict(job.refresh().events[-1].data or {})["why"] == "deadline passed"


def test_of_many_sweeps_and_a_vote_at_once_one_ends_it(engine: Engine, lone_producer: Producer) -> None:
    approvals = [
        waiting(engine, lone_producer, job=enqueued(lone_producer, idempotency_key=f"k{n}"), expires_seconds=0.05)
        for n in range(6)
    ]

    def act(number: int) -> int:
        if number % 2:
            return sweep(engine)
        try:
            approve(lone_producer, approvals[number // 2])
        except ApprovalClosed:
            return 0
        return 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(act, range(12)))
    overdue_left = sweep(engine)
    assert overdue_left >= 0
    for approval in approvals:
        decided, job = lone_producer.approvals.get(approval.id), job_of(lone_producer, approval)
        assert (decided.state, job.state) in [
            (ApprovalState.APPROVED, State.QUEUED),
            (ApprovalState.EXPIRED, State.EXPIRED),
        ]
        assert [k for k in kinds(job) if k in ("approved", "approval_expired")] == [
            "approved" if decided.state is ApprovalState.APPROVED else "approval_expired"
        ]


def test_a_job_that_is_cancelled_while_it_waits_takes_its_question_back(
    engine: Engine, lone_producer: Producer
) -> None:
    approval = waiting(engine, lone_producer)
    assert lone_producer.cancel(approval.job_id) == "cancelled"
    assert lone_producer.approvals.get(approval.id).state is ApprovalState.WITHDRAWN
    with pytest.raises(ApprovalClosed, match="is withdrawn: the job was cancelled"):
        approve(lone_producer, approval)
    assert sweep(engine) == 0
    assert job_of(lone_producer, approval).state is State.CANCELLED


def test_a_job_that_is_cancelled_after_it_was_approved_does_not_begin(engine: Engine, lone_producer: Producer) -> None:
    approval = waiting(engine, lone_producer)
    approve(lone_producer, approval)
    job = job_of(lone_producer, approval)
    attempt = claim(engine, job)
    assert lone_producer.cancel(job.id) == "requested"
    assert begin(engine, attempt, approval.id) == "cancelled"
    assert lone_producer.approvals.get(approval.id).consumed_at is None


def test_a_job_whose_cancellation_was_asked_for_meanwhile_asks_nobody(engine: Engine, lone_producer: Producer) -> None:
    job = enqueued(lone_producer)
    attempt = claim(engine, job)
    assert lone_producer.cancel(job.id) == "requested"
    park(engine, attempt, asked_of(job.id))
    assert (job.refresh().state, kinds(job)[-1]) == (State.CANCELLED, "cancelled")
    assert list(lone_producer.approvals.of_job(job.id)) == []


def test_who_asked_may_take_it_back_and_the_job_is_cancelled(engine: Engine, lone_producer: Producer) -> None:
    approval = waiting(engine, lone_producer)
    taken = lone_producer.approvals.withdraw(approval.id, by="ada", reason="not needed any more")
    assert (taken.state, taken.decided_by) == (ApprovalState.WITHDRAWN, "ada")
    job = job_of(lone_producer, approval)
    assert (job.state, kinds(job)[-1]) == (State.CANCELLED, "approval_withdrawn")
    again = lone_producer.approvals.withdraw(approval.id, by="ada", reason="not needed any more")
    assert again == taken
    with pytest.raises(ApprovalClosed):
        approve(lone_producer, approval)


def test_after_a_time_more_people_are_asked(engine: Engine, lone_producer: Producer) -> None:
    escalation: dict[str, Any] = {"escalate_seconds": 0.001, "escalate_to": ("olga",), "escalate_roles": ("board",)}
    approval = waiting(engine, lone_producer, **escalation)
    assert sweep(engine) == 1
    assert sweep(engine) == 0
    escalated = lone_producer.approvals.get(approval.id)
    assert (escalated.approvers, escalated.roles) == (("ben", "eve", "kim", "olga"), ("board",))
    assert escalated.escalated_at is not None
    assert kinds(job_of(lone_producer, approval))[-1] == "approval_escalated"
    assert approve(lone_producer, approval, "olga").state is ApprovalState.APPROVED


def test_where_anybody_may_decide_an_escalation_shuts_nobody_out(engine: Engine, lone_producer: Producer) -> None:
    approval = waiting(engine, lone_producer, approvers=(), escalate_seconds=0.001, escalate_to=("olga",))
    assert sweep(engine) == 1
    assert approve(lone_producer, approval, "anybody").state is ApprovalState.APPROVED

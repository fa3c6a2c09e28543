"""An approval is for one request as it is stored, and for one job, once: whatever is altered, edited or asked anew."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from producer import ApprovalClosed, ApprovalMismatch, ApprovalState, ApproverRefused, InvalidRequest, Producer, State
from tests.integration.approving import approve, begin, claim, enqueued, job_of, kinds, reviewed, waiting
from tests.integration.test_statements import settlement, writer_of


def test_the_digest_of_another_request_approves_nothing(engine: Engine, lone_producer: Producer) -> None:
    approval = waiting(engine, lone_producer)
    other = waiting(engine, lone_producer, job=enqueued(lone_producer, idempotency_key="k"))
    with pytest.raises(ApprovalMismatch, match="has another digest"):
        approve(lone_producer, approval, digest=other.digest)
    for digest in ("", "0" * 63, "Z" * 64, approval.digest.upper(), None):
        with pytest.raises(InvalidRequest, match="digest"):
            approve(lone_producer, approval, digest=digest)
    assert lone_producer.approvals.get(approval.id).votes == ()


ALTERED = (
    'UPDATE decisions SET params = \'{"a": 1, "b": 3}\'',
    'UPDATE decisions SET params = \'{"a": 1,"b": 2 }\'',
    "UPDATE decisions SET user_id = 'mallory'",
    "UPDATE decisions SET reasoning = 'because'",
    "UPDATE jobs SET action = 'test.fail'",
)


@pytest.mark.parametrize("statement", ALTERED)
def test_a_request_that_was_altered_while_it_waited_is_approved_by_nobody(
    engine: Engine, lone_producer: Producer, statement: str
) -> None:
    approval = waiting(engine, lone_producer)
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    with pytest.raises(ApprovalMismatch, match="was altered since") as caught:
        approve(lone_producer, approval)
    assert caught.value.altered


@pytest.mark.parametrize("statement", ALTERED[:4])
def test_a_request_that_was_altered_after_it_was_approved_does_not_begin(
    engine: Engine, lone_producer: Producer, statement: str
) -> None:
    approval = waiting(engine, lone_producer)
    approve(lone_producer, approval)
    attempt = claim(engine, job_of(lone_producer, approval))
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    found = reviewed(engine, attempt)
    assert found is not None
    assert [each.digest == found.digest for each in found.approved] == [False]
    assert begin(engine, attempt, approval.id) == "unapproved"
    job = job_of(lone_producer, approval)
    assert (job.state, job.record.attempt, kinds(job)[-1]) == (State.CLAIMED, 0, "claimed")
    assert lone_producer.approvals.get(approval.id).consumed_at is None


def test_an_approval_is_for_its_own_job_alone(engine: Engine, lone_producer: Producer) -> None:
    approval = waiting(engine, lone_producer)
    approve(lone_producer, approval)
    other = claim(engine, enqueued(lone_producer, idempotency_key="k"))
    assert begin(engine, other, approval.id) == "unapproved"
    mine = claim(engine, job_of(lone_producer, approval))
    assert begin(engine, mine, approval.id) == "intended"
    assert begin(engine, other, approval.id) == "unapproved"


def test_the_attempts_of_one_job_are_one_intent_and_its_rerun_is_another(
    engine: Engine, lone_producer: Producer
) -> None:
    job = enqueued(lone_producer, idempotency_key="k")
    approval = waiting(engine, lone_producer, job=job)
    approve(lone_producer, approval)
    first = claim(engine, job)
    assert begin(engine, first, approval.id) == "intended"
    first_used = lone_producer.approvals.get(approval.id).consumed_at
    fields = {"waiting_for": "retry", "delay": 0.0, "kind": "attempt_failed"}
    writer_of(engine).settle([settlement(first, State.WAITING, **fields)])
    second = claim(engine, job)
    assert begin(engine, second, approval.id) == "intended"
    assert lone_producer.approvals.get(approval.id).consumed_at == first_used
    writer_of(engine).settle([settlement(second, State.FAILED)])
    again = enqueued(lone_producer, idempotency_key="k", on_closed="rerun")
    attempt = claim(engine, again)
    found = reviewed(engine, attempt)
    assert found is not None
    assert found.approved == ()
    assert begin(engine, attempt, approval.id) == "unapproved"


def test_an_approval_that_was_not_begun_under_in_time_is_no_good_any_more(
    engine: Engine, lone_producer: Producer
) -> None:
    approval = waiting(engine, lone_producer)
    approve(lone_producer, approval)
    attempt = claim(engine, job_of(lone_producer, approval))
    with engine.connect() as connection:
        connection.execute(text("UPDATE approvals SET valid_until = clock_timestamp() - interval '1 s'"))
    found = reviewed(engine, attempt)
    assert found is not None
    assert [each.usable for each in found.approved] == [False]
    assert begin(engine, attempt, approval.id) == "unapproved"


def test_a_policy_that_asks_anew_supersedes_what_it_asked_before(engine: Engine, lone_producer: Producer) -> None:
    approval = waiting(engine, lone_producer)
    approve(lone_producer, approval)
    job = job_of(lone_producer, approval)
    newer = waiting(engine, lone_producer, job=job, rule_version=2)
    old = lone_producer.approvals.get(approval.id)
    assert (old.state, old.decided_why, newer.state) == (
        ApprovalState.SUPERSEDED,
        "the policy asks anew",
        ApprovalState.PENDING,
    )
    assert kinds(job)[-2:] == ["approval_requested", "approval_superseded"]
    approve(lone_producer, newer, "eve")
    attempt = claim(engine, job)
    assert begin(engine, attempt, approval.id) == "unapproved"
    assert begin(engine, attempt, newer.id) == "intended"


def test_an_intent_that_rests_on_two_approvals_needs_both(engine: Engine, lone_producer: Producer) -> None:
    first = waiting(engine, lone_producer)
    approve(lone_producer, first)
    job = job_of(lone_producer, first)
    second = waiting(engine, lone_producer, job=job, rule="strangers")
    reject_none = lone_producer.approvals.get(first.id)
    assert reject_none.state is ApprovalState.APPROVED
    approve(lone_producer, second, "kim")
    attempt = claim(engine, job)
    assert begin(engine, attempt, first.id, uuid4()) == "unapproved"
    assert lone_producer.approvals.get(first.id).consumed_at is None
    assert begin(engine, attempt, first.id, second.id) == "intended"


def test_an_edit_makes_another_request_with_a_digest_of_its_own(engine: Engine, lone_producer: Producer) -> None:
    approval = waiting(engine, lone_producer)
    said = {"digest": approval.digest, "by": "ben", "reason": "less is enough"}
    job_id = lone_producer.approvals.edit(approval.id, {"a": 1, "b": 1}, **said)
    assert lone_producer.approvals.edit(approval.id, {"a": 1, "b": 1}, **said) == job_id
    old, job = job_of(lone_producer, approval), lone_producer.job(job_id)
    superseded = lone_producer.approvals.get(approval.id)
    assert (old.state, superseded.state, superseded.superseded_by) == (
        State.CANCELLED,
        ApprovalState.SUPERSEDED,
        job_id,
    )
    assert (kinds(old)[-1], dict(old.events[-1].data or {})["job"]) == ("approval_edited", str(job_id))
    record = job.record
    assert (job.state, record.params, record.parent_job_id, record.request_id, record.user_id, record.agent_id) == (
        State.QUEUED,
        {"a": 1, "b": 1},
        old.id,
        old.record.request_id,
        "ada",
        "bot",
    )
    newer = waiting(engine, lone_producer, job=job)
    assert newer.digest != approval.digest
    assert newer.excluded == ("ada", "bot", "ada", "bot", "ben")
    with pytest.raises(ApprovalClosed, match="is superseded by ben: less is enough"):
        approve(lone_producer, approval, "eve")
    with pytest.raises(ApproverRefused, match="or edited it"):
        approve(lone_producer, newer, "ben")
    with pytest.raises(ApprovalMismatch):
        approve(lone_producer, newer, "eve", digest=approval.digest)
    assert approve(lone_producer, newer, "eve").state is ApprovalState.APPROVED


def test_an_edit_that_does_not_fit_changes_nothing(engine: Engine, lone_producer: Producer) -> None:
    approval = waiting(engine, lone_producer)
    with pytest.raises(InvalidRequest, match=r"params\.b"):
        lone_producer.approvals.edit(
            approval.id, {"a": 1, "b": "two"}, digest=approval.digest, by="ben", reason="because"
        )
    with pytest.raises(ApprovalMismatch):
        lone_producer.approvals.edit(approval.id, {"a": 1, "b": 1}, digest="0" * 64, by="ben", reason="because")
    assert job_of(lone_producer, approval).state is State.AWAITING_APPROVAL
    assert len(lone_producer.jobs()) == 1

"""Who decides what waits for people, and whose word counts where several speak, at once or beforehand."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine

from producer import ApprovalClosed, ApprovalMismatch, ApprovalState, ApproverRefused, Producer, State
from tests.integration.approving import WHY, approve, enqueued, job_of, kinds, reject, waiting


def test_the_quorum_is_of_different_people(engine: Engine, lone_producer: Producer) -> None:
    approval = waiting(engine, lone_producer, quorum=2)
    assert approve(lone_producer, approval, "ben").missing == 1
    assert approve(lone_producer, approval, "ben").missing == 1
    for spelled in ("BEN", " ben ", "\uff42\uff45\uff4e"):
        assert approve(lone_producer, approval, spelled).missing == 1
    job = job_of(lone_producer, approval)
    assert job.state is State.AWAITING_APPROVAL
    assert kinds(job).count("approved") == 1
    assert approve(lone_producer, approval, "eve").state is ApprovalState.APPROVED
    assert job.refresh().state is State.QUEUED


def test_one_who_rejects_is_enough_and_ends_the_job(engine: Engine, lone_producer: Producer) -> None:
    approval = waiting(engine, lone_producer, quorum=2)
    approve(lone_producer, approval, "ben")
    decided = reject(lone_producer, approval, "eve", reason="too much")
    job = job_of(lone_producer, approval)
    assert (decided.state, decided.decided_by, decided.decided_why) == (ApprovalState.REJECTED, "eve", "too much")
    assert (job.state, job.record.finished_at is not None, kinds(job)[-1]) == (State.REJECTED, True, "rejected")


@pytest.mark.parametrize("by", ["ada", "ADA", " ada", "bot", "Bot"])
def test_who_asked_and_the_agent_that_did_cannot_approve_it_however_they_spell_themselves(
    engine: Engine, lone_producer: Producer, by: str
) -> None:
    approval = waiting(engine, lone_producer, approvers=("ada", "bot", "ben"))
    with pytest.raises(ApproverRefused, match="somebody else has to decide"):
        approve(lone_producer, approval, by)
    everybody = waiting(engine, lone_producer, job=enqueued(lone_producer, idempotency_key="k"), approvers=())
    with pytest.raises(ApproverRefused, match="somebody else has to decide"):
        approve(lone_producer, everybody, by)
    assert approve(lone_producer, everybody, "anybody").state is ApprovalState.APPROVED


def test_nobody_else_than_who_is_named_or_has_a_role_decides(engine: Engine, lone_producer: Producer) -> None:
    approval = waiting(engine, lone_producer, roles=("finance",))
    with pytest.raises(ApproverRefused, match="mallory is none of those who may decide"):
        approve(lone_producer, approval, "mallory")
    lone_producer.for_tenant("other").roles.grant("finance", "mallory")
    lone_producer.roles.grant("sales", "mallory")
    with pytest.raises(ApproverRefused):
        reject(lone_producer, approval, "mallory")
    lone_producer.roles.grant("finance", "olga", who="root")
    assert next((each.role, each.person, each.granted_by) for each in lone_producer.roles.list()) == (
        "finance",
        "olga",
        "root",
    )
    assert approve(lone_producer, approval, "olga").state is ApprovalState.APPROVED
    assert lone_producer.roles.revoke("finance", "olga") is True
    assert lone_producer.roles.revoke("finance", "olga") is False
    assert lone_producer.approvals.get(approval.id).state is ApprovalState.APPROVED


def test_one_person_has_one_vote(engine: Engine, lone_producer: Producer) -> None:
    approval = waiting(engine, lone_producer, quorum=2)
    approve(lone_producer, approval, "ben")
    with pytest.raises(ApproverRefused, match="has said approve before"):
        reject(lone_producer, approval, "ben")
    assert lone_producer.approvals.get(approval.id).missing == 1


def test_a_second_decision_gets_the_first_one_back(engine: Engine, lone_producer: Producer) -> None:
    approval = waiting(engine, lone_producer)
    reject(lone_producer, approval, "ben", reason="too much")
    with pytest.raises(ApprovalClosed, match="is rejected by ben: too much") as caught:
        approve(lone_producer, approval, "eve")
    assert (caught.value.state, caught.value.decided_by, caught.value.why) == ("rejected", "ben", "too much")
    assert reject(lone_producer, approval, "ben", reason="again").decided_why == "too much"
    assert kinds(job_of(lone_producer, approval)).count("rejected") == 1


def test_of_who_approves_and_who_rejects_at_once_one_is_first_and_the_job_goes_one_way(
    engine: Engine, lone_producer: Producer
) -> None:
    for round_ in range(5):
        approval = waiting(engine, lone_producer, job=enqueued(lone_producer, idempotency_key=f"k{round_}"))
        barrier = threading.Barrier(6)

        def say(number: int, approval: Any = approval, barrier: threading.Barrier = barrier) -> str:
            barrier.wait()
            word = approve if number % 2 else reject
            try:
                return str(word(lone_producer, approval, ["ben", "eve", "kim"][number // 2]).state)
            except (ApprovalClosed, ApproverRefused) as error:
                return type(error).__name__

        with ThreadPoolExecutor(6) as threads:
            said = list(threads.map(say, range(6)))
        decided, job = lone_producer.approvals.get(approval.id), job_of(lone_producer, approval)
        assert len(decided.votes) == 1
        assert sorted(said)[:5] == ["ApprovalClosed"] * 5 or "ApproverRefused" in said
        assert (decided.state, job.state) in [
            (ApprovalState.APPROVED, State.QUEUED),
            (ApprovalState.REJECTED, State.REJECTED),
        ]


def test_of_two_who_complete_a_quorum_at_once_each_is_counted_once(engine: Engine, lone_producer: Producer) -> None:
    approval = waiting(engine, lone_producer, quorum=3)
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda by: approve(lone_producer, approval, by), ["ben", "eve", "kim"] * 2))
    assert lone_producer.approvals.get(approval.id).state is ApprovalState.APPROVED
    votes = [dict(e.data or {})["votes"] for e in job_of(lone_producer, approval).events if e.kind == "approved"]
    assert votes == [1, 2, 3]


def test_a_word_that_comes_before_the_question_is_found(engine: Engine, lone_producer: Producer) -> None:
    job = enqueued(lone_producer)
    digest = lone_producer.approvals.digest_of(job.id)
    for by in ("ada", "mallory", "ben", "ben"):
        lone_producer.approvals.decide_ahead(job.id, "approve", digest=digest, by=by, reason=WHY)
    with pytest.raises(ApproverRefused, match="has said approve before"):
        lone_producer.approvals.decide_ahead(job.id, "reject", digest=digest, by="ben", reason=WHY)
    with pytest.raises(ApprovalMismatch):
        lone_producer.approvals.decide_ahead(job.id, "approve", digest="0" * 64, by="eve", reason=WHY)
    approval = waiting(engine, lone_producer, job=job)
    assert (approval.state, [vote.by for vote in approval.votes]) == (ApprovalState.APPROVED, ["ben"])
    assert job.refresh().state is State.QUEUED
    assert kinds(job)[-2:] == ["approval_requested", "approved"]
    assert kinds(job).count("approved_ahead") == 3


def test_a_no_that_comes_before_the_question_ends_the_job_as_it_is_asked(
    engine: Engine, lone_producer: Producer
) -> None:
    job = enqueued(lone_producer)
    digest = lone_producer.approvals.digest_of(job.id)
    lone_producer.approvals.decide_ahead(job.id, "reject", digest=digest, by="eve", reason=WHY)
    approval = waiting(engine, lone_producer, job=job, quorum=2)
    assert (approval.state, job.refresh().state) == (ApprovalState.REJECTED, State.REJECTED)

"""People are asked, and say what they say: what is asked, what is written down of it, and what cannot be said."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from producer import ApprovalClosed, ApprovalNotFound, ApprovalState, InvalidRequest, JobNotFound, Producer, State
from producer.acting import acting
from tests.integration.approving import WHY, approve, begin, claim, enqueued, job_of, kinds, reject, reviewed, waiting


def test_a_job_that_waits_for_people_is_nobody_s_and_says_what_is_asked(
    engine: Engine, lone_producer: Producer
) -> None:
    approval = waiting(engine, lone_producer, quorum=2, preview='{"less": 3}')
    job = job_of(lone_producer, approval)
    assert (job.state, job.record.lease_owner, kinds(job)) == (
        State.AWAITING_APPROVAL,
        None,
        ["accepted", "claimed", "approval_requested"],
    )
    assert (approval.state, approval.missing, approval.approvers, approval.excluded) == (
        ApprovalState.PENDING,
        2,
        ("ben", "eve", "kim"),
        ("ada", "bot"),
    )
    assert (approval.params, approval.user_id, approval.preview) == ({"a": 1, "b": 2}, "ada", {"less": 3})
    assert list(lone_producer.approvals.list()) == [approval] == [lone_producer.approvals.get(approval.id)]
    assert list(lone_producer.approvals.list(state="approved")) == []
    assert list(lone_producer.approvals.list(action="test.other")) == []


def test_the_digest_is_of_the_request_as_it_is_stored_and_anybody_can_compute_it(
    engine: Engine, lone_producer: Producer
) -> None:
    job = enqueued(lone_producer, params={"b": 2, "a": 1}, input={"said": "ü\n\x7f\\"}, reasoning='so "it" is')
    with engine.connect() as connection:
        stored = connection.execute(
            text("SELECT CAST(input AS text) AS input, CAST(params AS text) AS params FROM decisions")
        ).one()
    record = job.record
    named = [str(job.id), record.tenant, record.action, 1, record.idempotency_key, record.request_id]
    words = [json.dumps(each, ensure_ascii=False) for each in (*named, "ada", "bot")]
    whole = f"[{', '.join([*words, stored.input, json.dumps(record.reasoning), stored.params])}]"
    assert lone_producer.approvals.digest_of(job.id) == hashlib.sha256(whole.encode()).hexdigest()
    other = enqueued(lone_producer, params={"b": 2, "a": 1}, idempotency_key="another")
    assert lone_producer.approvals.digest_of(other.id) != lone_producer.approvals.digest_of(job.id)
    with pytest.raises(JobNotFound):
        lone_producer.for_tenant("other").approvals.digest_of(job.id)


def test_what_is_approved_is_due_at_once_and_its_intent_uses_the_approval_up(
    engine: Engine, lone_producer: Producer
) -> None:
    approval = waiting(engine, lone_producer)
    decided = approve(lone_producer, approval, via="cli", address="192.0.2.7")
    job = job_of(lone_producer, approval)
    assert (job.state, decided.state, decided.decided_by, decided.missing) == (
        State.QUEUED,
        ApprovalState.APPROVED,
        "ben",
        0,
    )
    (vote,) = decided.votes
    assert (vote.by, vote.verdict, vote.reason, vote.via, vote.address) == ("ben", "approve", WHY, "cli", "192.0.2.7")
    told = dict(job.events[-1].data or {})
    assert (job.events[-1].kind, told["who"], told["to"], told["rule"], told["version"], told["digest"]) == (
        "approved",
        "ben",
        "queued",
        "large_sums",
        1,
        approval.digest,
    )
    attempt = claim(engine, job)
    found = reviewed(engine, attempt)
    assert found is not None
    assert [(each.id, each.digest == found.digest, each.usable) for each in found.approved] == [
        (approval.id, True, True)
    ]
    assert begin(engine, attempt, approval.id) == "intended"
    assert lone_producer.approvals.get(approval.id).consumed_at is not None
    assert job.refresh().state is State.RUNNING


def test_what_people_did_is_an_act_each_and_what_came_to_nothing_is_none(
    engine: Engine, lone_producer: Producer
) -> None:
    approval = waiting(engine, lone_producer)
    lone_producer.roles.grant("finance", "ben", who="root")
    lone_producer.roles.grant("finance", "ben", who="root")
    with acting("somebody", "console of the house"):
        approve(lone_producer, approval)
    approve(lone_producer, approval)
    with pytest.raises(ApprovalClosed):
        reject(lone_producer, approval, "eve")
    other = waiting(engine, lone_producer, job=enqueued(lone_producer, idempotency_key="k"))
    said = {"digest": other.digest, "by": "eve", "reason": "less"}
    job_id = lone_producer.approvals.edit(other.id, {"a": 0, "b": 0}, **said)
    lone_producer.approvals.decide_ahead(
        job_id, "reject", digest=lone_producer.approvals.digest_of(job_id), by="kim", reason="no"
    )
    third = waiting(engine, lone_producer, job=lone_producer.job(job_id))
    assert third.state is ApprovalState.REJECTED
    acts = lone_producer.acts(since=datetime.now(UTC) - timedelta(hours=1))
    assert [(act.act, act.who, act.reason) for act in reversed(acts)] == [
        ("grant role", "root", None),
        ("approve", "ben", WHY),
        ("edit", "eve", "less"),
        ("reject ahead", "kim", "no"),
    ]
    of_approve = acts[-2]
    assert (of_approve.via, of_approve.job_id, (of_approve.data or {})["approval"]) == (
        "console of the house",
        approval.job_id,
        str(approval.id),
    )


def test_another_tenant_s_are_not_there(engine: Engine, lone_producer: Producer) -> None:
    approval = waiting(engine, lone_producer)
    other = lone_producer.for_tenant("other")
    assert list(other.approvals.list(state=None)) == []
    for act in (
        lambda: other.approvals.get(approval.id),
        lambda: approve(other, approval),
        lambda: other.approvals.withdraw(approval.id, by="ben", reason=WHY),
        lambda: other.approvals.edit(approval.id, {}, digest=approval.digest, by="ben", reason=WHY),
    ):
        with pytest.raises(ApprovalNotFound):
            act()
    for nonsense in ("x", "", UUID(int=0)):
        with pytest.raises(ApprovalNotFound):
            lone_producer.approvals.get(nonsense)


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ({"by": None}, "by"),
        ({"by": ""}, "by"),
        ({"by": "a\nb"}, "by"),
        ({"reason": " "}, "reason"),
        ({"reason": None}, "reason"),
        ({"reason": "x" * 5_000}, "reason"),
        ({"via": ""}, "via"),
        ({"address": "a\x00"}, "address"),
    ],
)
def test_what_cannot_be_said_is_refused_by_its_place(
    engine: Engine, lone_producer: Producer, said: dict[str, Any], where: str
) -> None:
    approval = waiting(engine, lone_producer)
    with pytest.raises(InvalidRequest) as caught:
        approve(lone_producer, approval, **said)
    assert caught.value.where == where
    assert lone_producer.approvals.get(approval.id).votes == ()


def test_what_a_policy_says_again_of_one_attempt_is_not_said_twice(engine: Engine, lone_producer: Producer) -> None:
    job = enqueued(lone_producer)
    attempt = claim(engine, job)
    yes, no = ({"rule": "r", "version": 1, "verdict": word} for word in ("allow", "error"))
    other = {"rule": "s", "version": 4, "verdict": "allow", "reason": 'ü "x"'}
    for notes in ((yes, other), (yes, other), (no,), (yes,)):
        assert reviewed(engine, attempt, *notes) is not None
    told = [event.data for event in job.events if event.kind == "policy"]
    assert told == [yes, other, no, yes]
    assert [event.seq for event in job.events] == list(range(1, 7))
    assert reviewed(engine, attempt, yes, worker="w2") is None

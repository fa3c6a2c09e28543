"""Asking people and taking their word, each in one transaction: the job's row is locked first, then the approval's.

Whoever moves a job locks its row, so a vote, an edit, a cancellation, an expiry and another vote come one after the
other, and each sees what the one before has made of it. Every function here belongs in a transaction that its caller
begins, and takes back where it raises.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.acting import Actor
from producer.errors import ApprovalClosed, ApprovalMismatch, ApprovalNotFound, ApproverRefused
from producer.ledger.acts import act_of, note_act
from producer.ledger.approvals import DIGEST, Answer, ApprovalState
from producer.ledger.engine import WAKE_CHANNEL
from producer.ledger.states import CLOSED, State, in_sql
from producer.people import is_one_of, key_of

LOCK_JOB = text("""
SELECT j.id FROM jobs j JOIN approvals p ON p.job_id = j.id WHERE p.id = :id AND p.tenant = :tenant FOR UPDATE OF j
""")
STANDING = text(f"""
SELECT p.*, encode(p.digest, 'hex') AS digest_hex, p.expires_at <= clock_timestamp() AS overdue, j.state AS job_state,
  p.digest = {DIGEST} AS unchanged,
  ARRAY(SELECT r.person FROM roles r WHERE r.tenant = p.tenant AND r.role = ANY(p.roles)) AS members
FROM approvals p LEFT JOIN jobs j ON j.id = p.job_id LEFT JOIN decisions d ON d.job_id = p.job_id
WHERE p.id = :id AND p.tenant = :tenant FOR UPDATE OF p
""")
VOTES = text("SELECT voter_key, verdict FROM approval_votes WHERE approval_id = :id")
CAST = text("""
INSERT INTO approval_votes (id, job_id, approval_id, digest, voter, voter_key, verdict, reason, via, address)
VALUES (:vote, :job_id, :id, :digest, :by, :key, :verdict, :reason, :via, :address)
""")
DECIDE = text("""
UPDATE approvals SET state = :state, decided_at = clock_timestamp(), decided_by = :by, decided_why = :reason,
  valid_until = CASE WHEN :state = 'approved' THEN clock_timestamp() + make_interval(secs => valid_seconds) END,
  superseded_by = :job
WHERE id = :id AND state = 'pending'
""")
MOVE = text(f"""
WITH moved AS (
  UPDATE jobs SET state = :becomes, last_seq = last_seq + 1,
    finished_at = CASE WHEN :becomes IN ({in_sql(CLOSED)}) THEN clock_timestamp() END,
    due_at = CASE WHEN :becomes = '{State.QUEUED}' THEN clock_timestamp() ELSE due_at END,
    ring_at = CASE WHEN :becomes = '{State.QUEUED}' THEN clock_timestamp() ELSE ring_at END
  WHERE id = :job_id AND state = '{State.AWAITING_APPROVAL}'
  RETURNING id, last_seq
), noted AS (
  INSERT INTO events (job_id, seq, kind, worker, data)
  SELECT id, last_seq, :kind, :worker, CAST(:data AS json) FROM moved
)
SELECT id, CASE WHEN :becomes = '{State.QUEUED}' THEN pg_notify(:channel, '') END FROM moved
""")
NOTE = text("""
WITH counted AS (UPDATE jobs SET last_seq = last_seq + 1 WHERE id = :job_id RETURNING id, last_seq)
INSERT INTO events (job_id, seq, kind, worker, data)
SELECT id, last_seq, :kind, :worker, CAST(:data AS json) FROM counted
""")
# What was asked before, and is not what is asked now. One that a job has begun under stays as it is.
OVERTAKE = text("""
UPDATE approvals SET state = 'superseded', decided_at = coalesce(decided_at, clock_timestamp()),
  decided_why = 'the policy asks anew'
WHERE job_id = :job_id AND (state = 'pending' OR (state = 'approved' AND rule = :rule AND consumed_at IS NULL))
RETURNING id
""")
# Who edited a request asks for what it says now, as much as whoever asked first.
ASK = text(f"""
INSERT INTO approvals (id, tenant, job_id, action, action_version, rule, rule_version, digest, state, reason, approvers,
  roles, excluded, quorum, preview, preview_error, effect, cost, expires_at, valid_seconds, escalate_at, escalate_to,
  escalate_roles)
SELECT :id, j.tenant, j.id, j.action, j.action_version, :rule, :rule_version, {DIGEST}, 'pending', :reason,
  CAST(:approvers AS text[]), CAST(:roles AS text[]),
  array_remove(ARRAY[d.user_id, d.agent_id], NULL) || coalesce(e.excluded, '{{}}'), :quorum,
  CAST(:preview AS json), :preview_error, :effect, CAST(:cost AS json),
  least(clock_timestamp() + make_interval(secs => :expires_seconds), j.deadline_at), :valid_seconds,
  clock_timestamp() + make_interval(secs => CAST(:escalate_seconds AS double precision)),
  CAST(:escalate_to AS text[]), CAST(:escalate_roles AS text[])
FROM jobs j JOIN decisions d ON d.job_id = j.id
LEFT JOIN LATERAL (
  SELECT p.excluded || ARRAY[p.decided_by] AS excluded FROM approvals p WHERE p.superseded_by = j.id LIMIT 1
) e ON true
WHERE j.id = :job_id
""")
CANCEL_REQUESTED = text("SELECT cancel_requested_at IS NOT NULL FROM jobs WHERE id = :job_id")
AHEAD = text("""
SELECT v.voter, v.verdict, v.reason, v.via, v.address FROM approval_votes v JOIN approvals p ON p.job_id = v.job_id
WHERE p.id = :id AND v.approval_id IS NULL AND v.digest = p.digest ORDER BY v.at, v.id
""")
CAST_AHEAD = text(f"""
INSERT INTO approval_votes (id, job_id, digest, voter, voter_key, verdict, reason, via, address)
SELECT :vote, j.id, {DIGEST}, :by, :key, :verdict, :reason, :via, :address
FROM jobs j JOIN decisions d ON d.job_id = j.id
WHERE j.id = :job_id AND j.tenant = :tenant AND encode({DIGEST}, 'hex') = :digest
ON CONFLICT (job_id, digest, voter_key) WHERE approval_id IS NULL DO NOTHING
RETURNING id
""")
VERDICT_AHEAD = text("""
SELECT verdict FROM approval_votes
WHERE job_id = :job_id AND approval_id IS NULL AND encode(digest, 'hex') = :digest AND voter_key = :key
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a worker asks of people, for one job.

    Attributes:
        rule: The policy that asks, with `rule_version`.
        expires_seconds: From now; the job's own deadline may be sooner.
        valid_seconds: From the approval until the job has to have begun.
        escalate_seconds: From now until more people are asked; None for never.
        preview: JSON text; None where there is none.
        effect: The effect class of the action with these params.
        cost: JSON text of what an attempt may cost at most; None where the action declares none.
    """

    id: UUID
    job_id: UUID
    rule: str
    rule_version: int
    reason: str
    approvers: tuple[str, ...]
    roles: tuple[str, ...]
    quorum: int
    expires_seconds: float
    valid_seconds: float
    escalate_seconds: float | None
    escalate_to: tuple[str, ...]
    escalate_roles: tuple[str, ...]
    preview: str | None
    preview_error: str | None
    effect: str | None = None
    cost: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What one person says: see `producer.ledger.approvals.Vote`."""

    by: str
    verdict: Answer
    reason: str
    via: str
    address: str | None = None


def ask(connection: Connection, asked: Asked, *, worker: str) -> State:
    """Write down what is asked of people, for a job that has just become ``awaiting_approval``; return how it stands.

    Who has spoken already is heard: it may be approved, or rejected, at once. Where somebody has asked to cancel the
    job meanwhile nobody is asked, and it is cancelled.
    """
    job_id = asked.job_id
    if connection.execute(CANCEL_REQUESTED, {"job_id": job_id}).scalar():
        _move(connection, job_id, State.CANCELLED, "cancelled", {"reason": None}, worker=worker)
        return State.CANCELLED
    for old in connection.execute(OVERTAKE, {"job_id": job_id, "rule": asked.rule}).scalars():
        _note(connection, job_id, "approval_superseded", {"approval": old, "by": asked.id}, worker=worker)
    parameters = asdict(asked) | {
        name: list(getattr(asked, name)) for name in ("approvers", "roles", "escalate_to", "escalate_roles")
    }
    connection.execute(ASK, parameters)
    standing = _standing(connection, asked.id)
    for row in connection.execute(AHEAD, {"id": asked.id}).all():
        word = Word(by=row.voter, verdict=row.verdict, reason=row.reason, via=row.via, address=row.address)
        if standing.state == ApprovalState.PENDING and _refusal(standing, word.by) is None:
            _cast(connection, standing, word)
            standing = _standing(connection, asked.id)
    becomes = {ApprovalState.APPROVED: State.QUEUED, ApprovalState.REJECTED: State.REJECTED}
    return becomes.get(standing.state, State.AWAITING_APPROVAL)


def vote(connection: Connection, tenant: str, approval_id: UUID, word: Word, *, digest: str) -> None:
    """Take one person's word on what waits; the last one that is missing sends the job on, a ``reject`` ends it.

    The same word of the same person again changes nothing.

    Raises:
        ApprovalNotFound: If this tenant has no such approval.
        ApprovalClosed: If it is decided, or its time is over.
        ApprovalMismatch: If the digest is not the one that it is bound to, or the stored request is not any more.
        ApproverRefused: If this person may not decide it, or has said otherwise before.
    """
    standing = _locked(connection, tenant, approval_id)
    said = {row.voter_key: row.verdict for row in connection.execute(VOTES, {"id": approval_id})}
    before = said.get(key_of(word.by))
    if before == word.verdict and digest == standing.digest_hex:
        return
    _check_open(standing)
    _check_digest(standing, digest)
    if before is not None:
        raise ApproverRefused(word.by, f"has said {before} before, and one person has one vote")
    if (refusal := _refusal(standing, word.by)) is not None:
        raise ApproverRefused(word.by, refusal)
    _cast(connection, standing, word)
    told = {"approval": approval_id, "rule": standing.rule, "digest": digest}
    _act(connection, tenant, word.verdict, standing.job_id, by=word.by, via=word.via, reason=word.reason, **told)


def vote_ahead(connection: Connection, tenant: str, job_id: UUID, word: Word, *, digest: str) -> None:
    """Keep one person's word until somebody asks for it: whether he may decide is looked at then.

    Raises:
        ApprovalMismatch: If that is not the digest of the stored request.
        ApproverRefused: If this person has said otherwise before.
    """
    asked = {**asdict(word), "vote": uuid4(), "key": key_of(word.by), "tenant": tenant, "job_id": job_id}
    if connection.execute(CAST_AHEAD, asked | {"digest": digest}).scalar() is not None:
        kind = "approved_ahead" if word.verdict == "approve" else "rejected_ahead"
        told = {"who": word.by, "reason": word.reason, "via": word.via, "address": word.address, "digest": digest}
        _note(connection, job_id, kind, told)
        act = f"{word.verdict} ahead"
        _act(connection, tenant, act, job_id, by=word.by, via=word.via, reason=word.reason, digest=digest)
        return
    found = {"job_id": job_id, "digest": digest, "key": key_of(word.by)}
    before = connection.execute(VERDICT_AHEAD, found).scalar()
    if before is None:
        raise ApprovalMismatch(job_id)
    if before != word.verdict:
        raise ApproverRefused(word.by, f"has said {before} before, and one person has one vote")


def withdraw(connection: Connection, tenant: str, approval_id: UUID, *, by: str, reason: str, via: str) -> UUID:
    """Take back what was asked for, and cancel its job; return which.

    Raises:
        ApprovalNotFound: If this tenant has no such approval.
        ApprovalClosed: If it is decided, or its time is over; not where the same person has withdrawn it.
    """
    standing = _locked(connection, tenant, approval_id)
    job_id: UUID = standing.job_id
    if standing.state == ApprovalState.WITHDRAWN and standing.decided_by == by:
        return job_id
    _check_open(standing)
    _decide(connection, standing, ApprovalState.WITHDRAWN, by=by, reason=reason)
    told = {"approval": approval_id, "who": by, "reason": reason, "via": via, "to": State.CANCELLED}
    _move(connection, job_id, State.CANCELLED, "approval_withdrawn", told)
    _act(connection, tenant, "withdraw", job_id, by=by, via=via, reason=reason, approval=approval_id)
    return job_id


def edited_by(connection: Connection, tenant: str, approval_id: UUID, *, by: str, digest: str) -> UUID | None:
    """Lock what is about to be edited; return the job that the same person has made of it already.

    Raises:
        ApprovalNotFound: If this tenant has no such approval.
        ApprovalClosed: If it is decided, or its time is over.
        ApprovalMismatch: As for `vote`.
    """
    standing = _locked(connection, tenant, approval_id)
    if standing.superseded_by is not None and standing.decided_by == by:
        found: UUID = standing.superseded_by
        return found
    _check_open(standing)
    _check_digest(standing, digest)
    return None


def supersede(
    connection: Connection, tenant: str, approval_id: UUID, *, by: str, reason: str, via: str, job: UUID
) -> None:
    """Let another job, with the edited request, take the place of one that waits: that one is cancelled."""
    standing = _locked(connection, tenant, approval_id)
    _decide(connection, standing, ApprovalState.SUPERSEDED, by=by, reason=reason, job=job)
    told = {"approval": approval_id, "who": by, "reason": reason, "via": via, "job": job, "to": State.CANCELLED}
    _move(connection, standing.job_id, State.CANCELLED, "approval_edited", told)
    more = {"approval": approval_id, "job": job}
    _act(connection, tenant, "edit", standing.job_id, by=by, via=via, reason=reason, **more)


def _locked(connection: Connection, tenant: str, approval_id: UUID) -> Any:
    connection.execute(LOCK_JOB, {"id": approval_id, "tenant": tenant})
    row = connection.execute(STANDING, {"id": approval_id, "tenant": tenant}).one_or_none()
    if row is None:
        raise ApprovalNotFound(f"there is no approval {approval_id} for this tenant")
    return row


def _standing(connection: Connection, approval_id: UUID) -> Any:
    tenant = text("SELECT tenant FROM approvals WHERE id = :id")
    return _locked(connection, str(connection.execute(tenant, {"id": approval_id}).scalar()), approval_id)


def _check_open(standing: Any) -> None:
    if standing.state != ApprovalState.PENDING:
        raise ApprovalClosed(standing.id, standing.state, standing.decided_by, standing.decided_why)
    if standing.overdue:  # a worker is about to write it down
        raise ApprovalClosed(standing.id, ApprovalState.EXPIRED, None, "nobody decided in time")
    if standing.job_state != State.AWAITING_APPROVAL:
        raise ApprovalClosed(standing.id, ApprovalState.WITHDRAWN, None, f"its job is {standing.job_state}")


def _check_digest(standing: Any, digest: str) -> None:
    if digest != standing.digest_hex or not standing.unchanged:
        raise ApprovalMismatch(standing.job_id, altered=not standing.unchanged)


def _refusal(standing: Any, by: str) -> str | None:
    """Return why this person may not decide; None where he may."""
    if is_one_of(by, standing.excluded):
        return "asked for it, or is the agent that did, or edited it; somebody else has to decide"
    if (standing.approvers or standing.roles) and not is_one_of(by, [*standing.approvers, *standing.members]):
        return "is none of those who may decide"
    return None


def _cast(connection: Connection, standing: Any, word: Word) -> None:
    asked = {**asdict(word), "vote": uuid4(), "id": standing.id, "job_id": standing.job_id, "digest": standing.digest}
    connection.execute(CAST, asked | {"key": key_of(word.by)})
    votes = sum(row.verdict == "approve" for row in connection.execute(VOTES, {"id": standing.id}))
    told = {"approval": standing.id, "rule": standing.rule, "version": standing.rule_version, "who": word.by}
    told |= {
        "reason": word.reason,
        "via": word.via,
        "address": word.address,
        "votes": votes,
        "quorum": standing.quorum,
        "digest": standing.digest_hex,
    }
    kind = "approved" if word.verdict == "approve" else "rejected"
    if word.verdict == "approve" and votes < standing.quorum:
        _note(connection, standing.job_id, kind, told | {"to": State.AWAITING_APPROVAL})
        return
    state = ApprovalState.APPROVED if word.verdict == "approve" else ApprovalState.REJECTED
    becomes = State.QUEUED if word.verdict == "approve" else State.REJECTED
    _decide(connection, standing, state, by=word.by, reason=word.reason)
    _move(connection, standing.job_id, becomes, kind, told | {"to": becomes})


def _act(
    connection: Connection, tenant: str, act: str, job_id: UUID, *, by: str, via: str, reason: str, **data: Any
) -> None:
    note_act(connection, act_of(Actor(by, via), tenant, act, job_id, reason=reason, **data))


def _decide(
    connection: Connection, standing: Any, state: ApprovalState, *, by: str, reason: str, job: UUID | None = None
) -> None:
    connection.execute(DECIDE, {"id": standing.id, "state": state, "by": by, "reason": reason, "job": job})


def _move(
    connection: Connection,
    job_id: UUID,
    becomes: State,
    kind: str,
    told: Mapping[str, Any],
    *,
    worker: str | None = None,
) -> None:
    asked = {"job_id": job_id, "becomes": becomes, "kind": kind, "worker": worker, "channel": WAKE_CHANNEL}
    connection.execute(MOVE, asked | {"data": _as_json(told)}).one()


def _note(
    connection: Connection, job_id: UUID, kind: str, told: Mapping[str, Any], *, worker: str | None = None
) -> None:
    connection.execute(NOTE, {"job_id": job_id, "kind": kind, "worker": worker, "data": _as_json(told)})


def _as_json(told: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in told.items() if value is not None}, default=str)


__all__: Sequence[str] = ("Asked", "Word", "ask", "edited_by", "supersede", "vote", "vote_ahead", "withdraw")

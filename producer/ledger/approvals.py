"""What waits for a person, as the ledger has it: its rows, and the digest that an approval is bound to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

# Of the request as it is stored, to the letter: a json column keeps its text. Of job `j` and its decision `d`. Anybody
# can compute it from `surefoot show --json`; docs/gates.md says how.
DIGEST = """sha256(convert_to(CAST(json_build_array(
  j.id, j.tenant, j.action, j.action_version, j.idempotency_key, d.request_id, d.user_id, d.agent_id,
  d.input, d.reasoning, d.params) AS text), 'UTF8'))"""

COLUMNS = """
  p.id, p.tenant, p.job_id, p.action, p.action_version, p.rule, p.rule_version, encode(p.digest, 'hex') AS digest,
  p.state, p.reason, p.approvers, p.roles, p.excluded, p.quorum, p.preview, p.preview_error, p.effect, p.cost,
  p.requested_at,
  p.expires_at, p.valid_until, p.escalate_at, p.escalated_at, p.decided_at, p.decided_by, p.decided_why, p.consumed_at,
  p.superseded_by, d.request_id, d.user_id, d.agent_id, d.input, d.reasoning, d.params,
  coalesce((
    SELECT json_agg(json_build_object('by', v.voter, 'verdict', v.verdict, 'reason', v.reason, 'via', v.via,
                                      'address', v.address, 'at', v.at) ORDER BY v.at, v.id)
    FROM approval_votes v WHERE v.approval_id = p.id
  ), '[]') AS votes
"""
APPROVALS = f"SELECT {COLUMNS} FROM approvals p LEFT JOIN decisions d ON d.job_id = p.job_id"

BY_ID = text(f"{APPROVALS} WHERE p.id = :id AND p.tenant = :tenant")
OF_JOB = text(f"{APPROVALS} WHERE p.job_id = :id AND p.tenant = :tenant ORDER BY p.id")
# Their jobs' decisions only once it is known which they are.
NEWEST_FIRST = text(f"""
SELECT {COLUMNS} FROM (
  SELECT * FROM approvals a
  WHERE a.tenant = :tenant AND (CAST(:state AS text) IS NULL OR a.state = :state)
    AND (CAST(:action AS text) IS NULL OR a.action = :action)
    AND a.id < coalesce(CAST(:before AS uuid), 'ffffffff-ffff-ffff-ffff-ffffffffffff')
  ORDER BY a.id DESC LIMIT :limit
) p LEFT JOIN decisions d ON d.job_id = p.job_id ORDER BY p.id DESC
""")
DIGEST_OF = text(f"""
SELECT encode({DIGEST}, 'hex') FROM jobs j JOIN decisions d ON d.job_id = j.id WHERE j.id = :id AND j.tenant = :tenant
""")

Answer = Literal["approve", "reject"]


class ApprovalState(StrEnum):
    """Where an approval stands. The value is what the ledger stores."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"  # by a person
    EXPIRED = "expired"  # by nobody: it was not decided in time
    SUPERSEDED = "superseded"  # the request was edited, or the policy asks for something else by now
    WITHDRAWN = "withdrawn"  # whoever asked wants it no more


@dataclass(frozen=True, slots=True)
class Vote:
    """What one person said.

    Attributes:
        by: The person.
        verdict: ``approve`` or ``reject``.
        reason: Why.
        via: From where: ``python``, ``cli``, ``http``, ``console`` or ``link``.
        address: The network address that it came from; None where nobody knows one.
        at: When, by the database's clock.
    """

    by: str
    verdict: Answer
    reason: str
    via: str
    address: str | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A question to people, and what came of it.

    Attributes:
        id: Time-ordered.
        job_id: The job that waits, or waited.
        rule: The policy that asks, with `rule_version`; no other's question is answered by it.
        digest: SHA-256, hexadecimal, of the request as it is stored: what is approved is this and nothing else.
        reason: Why the policy asks.
        approvers: Who may decide, by name; of `roles`, who has one of these. Both empty: anybody but `excluded`.
        excluded: Who may not: who asked, the agent, and whoever edited the request.
        quorum: How many different people have to approve. One who rejects is enough.
        preview: What the action said that it would change; None where it has no preview.
        preview_error: Why there is none, where the action has one.
        effect: The effect class of the action with these params: what a lost answer would mean.
        cost: What an attempt may cost at most, ``{"usd": "0.25", "tokens": 0, "calls": 1}``, where null is not known;
            None where the action declares none.
        expires_at: Until when it can be decided.
        valid_until: Until when the job has to begin, once it is approved; None before.
        escalate_at: When more people are asked; None for never.
        decided_by: Whose word decided, or who withdrew or edited it; None where it expired.
        decided_why: In words: a person's reason, or the rule.
        consumed_at: When the job began under it. It is good for that one job, whatever is asked later.
        superseded_by: The job that an edit made of it.
        request_id: Of the job's decision, as all that follows; None where the job has been pruned.
    """

    id: UUID
    tenant: str
    job_id: UUID
    action: str
    action_version: int
    rule: str
    rule_version: int
    digest: str
    state: ApprovalState
    reason: str
    approvers: tuple[str, ...]
    roles: tuple[str, ...]
    excluded: tuple[str, ...]
    quorum: int
    preview: Any
    preview_error: str | None
    effect: str | None
    cost: dict[str, Any] | None
    requested_at: datetime
    expires_at: datetime
    valid_until: datetime | None
    escalate_at: datetime | None
    escalated_at: datetime | None
    decided_at: datetime | None
    decided_by: str | None
    decided_why: str | None
    consumed_at: datetime | None
    superseded_by: UUID | None
    request_id: str | None
    user_id: str | None
    agent_id: str | None
    input: Any
    reasoning: str | None
    params: dict[str, Any] | None
    votes: tuple[Vote, ...]

    @property
    def missing(self) -> int:
        """How many more people have to approve; 0 where it is decided."""
        if self.state is not ApprovalState.PENDING:
            return 0
        return self.quorum - sum(vote.verdict == "approve" for vote in self.votes)


def approval_by_id(connection: Connection, tenant: str, approval_id: UUID) -> Approval | None:
    """Read one of this tenant's; another tenant's is not there."""
    row = connection.execute(BY_ID, {"id": approval_id, "tenant": tenant}).one_or_none()
    return None if row is None else _approval(row)


def approvals_of_job(connection: Connection, tenant: str, job_id: UUID) -> list[Approval]:
    """Read what was asked of a job, the oldest first."""
    return [_approval(row) for row in connection.execute(OF_JOB, {"id": job_id, "tenant": tenant})]


def approvals_newest_first(
    connection: Connection,
    tenant: str,
    *,
    state: ApprovalState | None,
    action: str | None,
    limit: int,
    before: UUID | None,
) -> list[Approval]:
    """Read at most `limit`, the newest first; with `before`, those asked for before that one."""
    asked = {"tenant": tenant, "state": state, "action": action, "limit": limit, "before": before}
    return [_approval(row) for row in connection.execute(NEWEST_FIRST, asked)]


def digest_of(connection: Connection, tenant: str, job_id: UUID) -> str | None:
    """Return the digest of a job's request as it is stored now; None where this tenant has no such job."""
    found: str | None = connection.execute(DIGEST_OF, {"id": job_id, "tenant": tenant}).scalar()
    return found


def _approval(row: Any) -> Approval:
    names: Sequence[str] = Approval.__dataclass_fields__  # type: ignore[assignment]  # a mapping, by name
    fields = {name: getattr(row, name) for name in names}
    lists = {name: tuple(fields[name]) for name in ("approvers", "roles", "excluded")}
    votes = tuple(Vote(**vote | {"at": datetime.fromisoformat(vote["at"])}) for vote in row.votes)
    return Approval(**fields | lists | {"state": ApprovalState(row.state), "votes": votes})

"""What goes in and out of approvals, as types."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import Field

from producer.api.shapes import Json, Sent, Shown
from producer.approvals import LONGEST_TOKEN_SECONDS, TOKEN_SECONDS
from producer.ledger.approvals import Answer, ApprovalState, Vote
from producer.ledger.roles import Grant


class DecisionBody(Sent):
    """A word on what waits for people."""

    digest: str = Field(description="Of the request as it was seen: `digest` of the approval.")
    reason: str


class AheadBody(DecisionBody):
    """A word before anybody was asked."""

    verdict: Answer


class EditBody(DecisionBody):
    """What to ask for instead."""

    params: dict[str, Json]


class WithdrawBody(Sent):
    """Why it is taken back."""

    reason: str


class TokenBody(Sent):
    """Whose word, and which."""

    verdict: Answer
    person: str
    seconds: float = Field(TOKEN_SECONDS, gt=0, le=LONGEST_TOKEN_SECONDS, allow_inf_nan=False)


class Token(Shown):
    """A token, which is shown once."""

    token: str


class Digest(Shown):
    """SHA-256 of a request, hexadecimal."""

    digest: str


class Replaced(Shown):
    """The job that an edit made."""

    job_id: UUID


class ApprovalView(Shown):
    """A question to people, and what came of it."""

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
    approvers: list[str]
    roles: list[str]
    excluded: list[str]
    quorum: int
    missing: int
    preview: Json
    preview_error: str | None
    effect: str | None
    cost: dict[str, Json] | None
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
    input: Json
    reasoning: str | None
    params: dict[str, Json] | None
    votes: list[Vote]


class Approvals(Shown):
    """What was asked for one job."""

    approvals: list[ApprovalView]


class ApprovalPage(Shown):
    """Some approvals, the newest first; `next` is the cursor of those before them, null at the end."""

    approvals: list[ApprovalView]
    next: UUID | None


class RoleBody(Sent):
    """A role, and somebody."""

    role: str
    person: str


class RoleTaken(Shown):
    """Whether he had it."""

    had: bool


class Grants(Shown):
    """Who has which role."""

    grants: list[Grant]

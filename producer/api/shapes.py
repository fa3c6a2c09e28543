"""What goes in and out, as types: the OpenAPI document is made of them."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from producer.breakers import BreakerRecord, Word
from producer.conversation import Message
from producer.envelope import BATCH_LIMIT, DEFAULT_PRIORITY, OnClosed
from producer.explain import Explanation
from producer.ledger.accept import Outcome
from producer.ledger.cancel import Cancelled
from producer.ledger.policies import PublishedPolicy
from producer.ledger.reads import Event, PublishedAction
from producer.ledger.resolve import Verdict
from producer.ledger.schedules import ScheduleRecord
from producer.ledger.states import State

Json = Any


class Sent(BaseModel):
    """A body: what it does not know, it refuses."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Shown(BaseModel):
    """An answer, made of a record."""

    model_config = ConfigDict(from_attributes=True)


class EnqueueBody(Sent):
    """A request for one action; its idempotency key is the header's."""

    action: str = Field(description="The action's name, such as email.send.")
    params: dict[str, Json] = Field(default_factory=dict, description="By name, as GET /v1/actions has them.")
    user_id: str | None = Field(None, description="On whose behalf.")
    request_id: str | None = Field(None, description="The piece of work that the job belongs to; its chain.")
    agent_id: str | None = Field(None, description="Who decided.")
    input: Json = Field(None, description="What the decision was made of.")
    reasoning: str | None = Field(None, description="Why.")
    run_at: Annotated[AwareDatetime | None, Field(strict=False)] = None
    deadline: Annotated[AwareDatetime | None, Field(strict=False)] = None
    priority: int = Field(DEFAULT_PRIORITY, ge=0, le=9, description="0 is soonest.")
    queue: str | None = None
    on_closed: OnClosed = Field("replay", description="What to do where the key stands for a job that has ended.")


class BatchItem(EnqueueBody):
    """One of several."""

    idempotency_key: str | None = Field(None, description="Without, one is derived from the request and the day.")
    trace: str | None = Field(None, description="A W3C traceparent.")


class BatchBody(Sent):
    """Several requests, accepted together."""

    requests: list[BatchItem] = Field(max_length=BATCH_LIMIT)
    conflicts: Literal["raise", "return"] = Field(
        "raise", description="Whether a key that stands for another request refuses the batch, or is answered as such."
    )


class CancelBody(Sent):
    """Why a job is not wanted any more."""

    reason: str | None = None


class RetryBody(Sent):
    """Why a dead job is worth another attempt."""

    reason: str


class UndoBody(Sent):
    """Why what a job did is to be taken back."""

    reason: str


class ResolveBody(Sent):
    """What became of a job in doubt."""

    verdict: Verdict
    reason: str = Field(description="What the verdict rests on.")
    result: Json = Field(None, description="For happened: what the action would have returned.")


class JobView(Shown):
    """A job and its decision, as they stand."""

    id: UUID
    tenant: str
    action: str
    state: State
    idempotency_key: str
    key_derived: bool
    rerun: int
    replays: int
    waiting_for: str | None
    waiting_on: str | None
    queue: str
    priority: int
    traceparent: str
    accepted_at: datetime
    due_at: datetime
    deadline_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    attempt: int
    repairs: int
    crashes: int
    fence: int
    effect: str | None
    lease_owner: str | None
    lease_expires_at: datetime | None
    looks_left: int | None
    conversation_id: str | None
    request_id: str
    parent_job_id: UUID | None
    agent_id: str | None
    user_id: str | None
    input: Json
    reasoning: str | None
    params: dict[str, Json]
    result: Json
    fallback: Json
    degraded_by: str | None
    error: dict[str, Json] | None
    latency_ms: Decimal | None
    tokens_in: int | None
    tokens_out: int | None
    cost_usd: Decimal | None
    age: float
    is_at_rest: bool


class Enqueued(Shown):
    """How a request was answered."""

    outcome: Outcome
    job: JobView


class BatchAnswer(Shown):
    """How one of several was answered."""

    id: UUID
    outcome: Outcome
    conflict_paths: list[str]


class Batch(Shown):
    """How several were, in their order."""

    jobs: list[BatchAnswer]


class JobPage(Shown):
    """Some jobs, the newest first; `next` is the cursor of those before them, null at the end."""

    jobs: list[JobView]
    next: UUID | None


class CancelAnswer(Shown):
    """What became of a request to cancel; see `answer`."""

    answer: Cancelled
    job: JobView


class History(Shown):
    """A job's history, in order."""

    events: list[Event]


class Chain(Shown):
    """Every decision made for one request, in order."""

    request_id: str
    jobs: list[JobView]


class ConversationView(Shown):
    """A conversation: its newest messages in order, and whose turn it is."""

    id: str
    created_at: datetime
    length: int
    messages: list[Message]
    turn_of: UUID | None
    turn_state: State | None
    waiting: list[UUID]


class Actions(Shown):
    """All of them, by name."""

    actions: list[PublishedAction]


class ActView(Shown):
    """Something that a person did."""

    n: int
    at: datetime
    tenant: str
    act: str
    target: str
    who: str
    via: str
    reason: str | None
    job_id: UUID | None
    data: dict[str, Json] | None


class Acts(Shown):
    """What people did, the newest first; `next` is the cursor of those before them, null at the end."""

    acts: list[ActView]
    next: int | None


class Explanations(Shown):
    """Several jobs explained."""

    explanations: list[Explanation]


class ScheduleBody(Sent):
    """A schedule to add: exactly one of `cron` and `every`."""

    name: str
    action: str
    params: dict[str, Json] = Field(default_factory=dict)
    cron: str | None = Field(None, description="Five fields, such as 0 3 * * 1-5.")
    every: int | None = Field(None, description="Seconds.")
    zone: str | None = Field(None, description="Of cron, such as Europe/Berlin; UTC without.")
    missed: Literal["skip", "latest", "all"] = "latest"
    user_id: str | None = None
    request_id: str | None = None
    agent_id: str | None = None
    reasoning: str | None = None
    queue: str | None = None
    priority: int = Field(DEFAULT_PRIORITY, ge=0, le=9)


class ScheduleView(Shown):
    """A schedule, and how it stands."""

    id: UUID
    name: str
    action: str
    version: int
    params: dict[str, Json]
    cron: str | None
    every: int | None
    zone: str
    missed: str
    user_id: str | None
    request_id: str | None
    agent_id: str | None
    reasoning: str | None
    queue: str | None
    priority: int
    declared_by: str
    declared_in: str | None
    created_at: datetime
    paused_at: datetime | None
    paused_by: str | None
    next_tick: datetime
    last_tick: datetime | None
    last_job_id: UUID | None
    last_error: str | None

    @classmethod
    def of(cls, record: ScheduleRecord) -> ScheduleView:
        """Return a record so: its rule's fields stand beside the others."""
        facts = {each.name: getattr(record, each.name) for each in fields(record)}
        rule = facts.pop("rule")
        return cls(**facts, cron=rule.cron, every=rule.every, zone=rule.zone)


class Schedules(Shown):
    """All of a tenant's, by name."""

    schedules: list[ScheduleView]


class Ticks(Shown):
    """The next ticks of a schedule, in UTC."""

    ticks: list[datetime]


class ForceBody(Sent):
    """A word that overrides a breaker, or takes that back."""

    name: str
    word: Word
    reason: str
    seconds: float | None = Field(None, gt=0, allow_inf_nan=False, description="Until it goes by itself again.")
    new: bool = Field(default=False, description="Whether it may be one of which nothing is known yet.")


class Policies(Shown):
    """Those that a worker has to have loaded, by name."""

    policies: list[PublishedPolicy]


class RetireBody(Sent):
    """That nobody needs a policy any more, and why."""

    name: str
    reason: str


class Breakers(Shown):
    """All of which anything is known, by name."""

    breakers: list[BreakerRecord]


class TransitionView(Shown):
    """That a breaker went from one state to another."""

    name: str
    at: datetime
    epoch: int
    was: str
    becomes: str
    reason: str
    who: str
    job_id: UUID | None
    until: datetime | None
    release_per_second: float


class BreakerHistory(Shown):
    """A breaker's latest transitions, the newest first."""

    transitions: list[TransitionView]


class ProblemView(Shown):
    """An error (RFC 9457); further members stand beside these."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str

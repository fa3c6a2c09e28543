"""One attempt as data: what was claimed, what is intended, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

from producer.conversation import Message
from producer.envelope import Envelope
from producer.ledger.deciding import Asked
from producer.ledger.states import MOVES, State
from worker.budget_statements import Asking, Spent

# A job, and the fence under which it was claimed. The job alone does not name an attempt: a process may lose it, and
# claim it anew while the one that lost it still runs.
Lease = tuple[UUID, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at a job, as it was claimed.

    Attributes:
        fence: Every write for this attempt names it; a job that has moved on has another.
        number: 1 for the first try.
        maybe_happened: Whether an earlier attempt may have had its effect.
        cancel_requested: Whether somebody asked the job to stop.
        deadline_left: Seconds until the job's deadline; None where it has none.
        repeat_left: Seconds for which repeating the effect is safe; None where always, or not yet intended.
        conversation_id: Of which conversation it is a turn, as it was accepted.
        repairs: Attempts so far that were to repair an answer.
        repair: ``{"error", "answer"}`` of the last answer that could not be used; None where there was none.
        supersedes: The degraded job in whose place its result belongs; None where it is for itself.
        policies: How often published policies had changed when it was claimed; None where there never was one.
        late_seconds: For how long it had been due.
    """

    job_id: UUID
    tenant: str
    action: str
    params: Mapping[str, Any]
    fence: int
    number: int
    queue: str
    priority: int
    traceparent: str
    request_id: str
    user_id: str | None
    agent_id: str | None
    maybe_happened: bool
    cancel_requested: bool
    deadline_left: float | None
    repeat_left: float | None
    intended_before: bool
    conversation_id: str | None
    repairs: int = 0
    repair: Mapping[str, Any] | None = None
    supersedes: UUID | None = None
    policies: int | None = None
    late_seconds: float = 0.0

    @property
    def lease(self) -> Lease:
        """What tells this attempt from every other at the job."""
        return self.job_id, self.fence


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """That an attempt is about to touch the world.

    Attributes:
        effect: The effect class of this action with these params.
        repeat_seconds: For how long from the first intent a repeat is safe; None is for ever.
        quiet_seconds: After how long from now none of this attempt's effects can arrive any more; None where nothing
            can look them up.
        data: What the event says: the downstream key, the timeout.
        approvals: What it rests on; they are used up with it.
        asking: What is reserved of budgets with it, or it is not granted; None where none covers the action.
    """

    job_id: UUID
    fence: int
    effect: str
    repeat_seconds: float | None
    quiet_seconds: float | None = None
    data: Mapping[str, Any]
    approvals: tuple[UUID, ...] = ()
    asking: Asking | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How an attempt ended, as it will be written.

    Attributes:
        was: The state that it moves the job from, ``claimed`` or ``running``.
        becomes: The state that it moves the job to.
        waiting_for: Set where it becomes ``waiting``.
        waiting_on: Of which dependency, where it waits for one.
        delay: Seconds until the job is due again, or until its effect is looked up; None where neither follows.
        quiet_seconds: After how long from now none of this attempt's effects can arrive any more; None where nothing
            can look them up, or it had none.
        rings: Whether this process will ring the job when it is due; else the relay does, without waiting longer.
        unspent: 1 where the attempt does not count: a hold after the intent.
        maybe_happened: Whether the effect may have happened by now and nobody can say.
        kind: The event's.
        data: The event's, plain JSON.
        follow_ups: Accepted with the outcome, or the outcome is not written.
        repair: ``{"error", "answer"}``, where the next attempt is to repair an answer.
        supersedes: The degraded job in whose place a result belongs.
        conversation: The tenant's and its id, where the job is a turn of one.
        messages: Appended to it with the outcome.
        asks: What people are asked, where it becomes ``awaiting_approval``.
        spent: What it used, where it had reserved of budgets.
    """

    job_id: UUID
    fence: int
    attempt: int
    was: State
    becomes: State
    kind: str
    waiting_for: str | None = None
    waiting_on: str | None = None
    delay: float | None = None
    quiet_seconds: float | None = None
    rings: bool = True
    unspent: int = 0
    maybe_happened: bool = False
    result: Any = None
    error: Mapping[str, Any] | None = None
    latency_ms: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: Decimal | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    follow_ups: Sequence[Envelope] = ()
    repair: Mapping[str, Any] | None = None
    supersedes: UUID | None = None
    conversation: tuple[str, str] | None = None
    messages: Sequence[Message] = ()
    asks: Asked | None = None
    spent: Spent | None = None

    @property
    def brings(self) -> bool:
        """Whether more is written with the outcome than a statement of its own can."""
        superseding = self.supersedes is not None and self.becomes is State.SUCCEEDED
        return bool(self.follow_ups or self.messages) or superseding or self.asks is not None

    @property
    def why(self) -> str:
        """The rule that decided."""
        return str(self.data.get("why", ""))

    def __post_init__(self) -> None:
        """Refuse a move that the table of states does not know: it would be a bug here, not a state of the world."""
        if self.becomes not in MOVES[self.was]:
            raise ValueError(f"a job cannot go from {self.was} to {self.becomes}")


def attempt_of(row: Any, *, number: int, policies: int | None = None, late_seconds: float = 0.0) -> Attempt:
    """Return a row of a job and its decision as the attempt with that number."""
    return Attempt(
        job_id=row.id,
        tenant=row.tenant,
        action=row.action,
        params=row.params,
        fence=row.fence,
        number=number,
        queue=row.queue,
        priority=row.priority,
        traceparent=row.traceparent,
        request_id=row.request_id,
        user_id=row.user_id,
        agent_id=row.agent_id,
        maybe_happened=row.maybe_happened,
        cancel_requested=row.cancel_requested,
        deadline_left=None if row.deadline_left is None else float(row.deadline_left),
        repeat_left=None if row.repeat_left is None else float(row.repeat_left),
        intended_before=row.effect is not None,
        conversation_id=row.conversation_id,
        repairs=row.repairs,
        repair=row.repair,
        supersedes=row.supersedes,
        policies=policies,
        late_seconds=late_seconds,
    )

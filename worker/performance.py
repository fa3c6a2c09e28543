"""One attempt under way: what was claimed, what has come of it so far, and what the ledger is told of it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from producer.envelope import Envelope
from producer.ledger.deciding import Asked
from producer.ledger.states import State
from producer.ring import Ring
from tasks import ActionSpec, Context, Dependency, EffectClass, Repair, Turn
from tasks._context import Usage
from tasks._outcomes import FollowUpsRefused, Outcome
from tasks._policy import Policy
from worker.attempt import Attempt, Intent, Settlement
from worker.breaker_calls import Ticket
from worker.budget_rules import spent
from worker.budget_statements import Asking, Reservation, Spent
from worker.log import AUTHORS_LOG, log
from worker.retry import Situation, Verdict, repeat_seconds
from worker.retry_budget import Paid
from worker.timer import LONGEST_SECONDS
from worker.true_results import true_result

# An attempt that ends its job is an event of the job's new state; one that does not says why it waits.
HELD = "held"
HOLDS = dict.fromkeys(("rate", "concurrency", "conversation", "breaker", "retries", "policy", "budget"), HELD)
# What a stopping worker gives back is for others to ring, at once; and who waits for a turn is rung when it has it.
LEFT_TO_RELAYS = frozenset({"worker", "conversation"})
EVENT_KINDS = {"retry": "attempt_failed", "worker": "returned", "repair": "repair", **HOLDS}
# Before the check has said which.
NO_DEPENDENCY = Dependency(name="unknown")


@dataclass(slots=True)
class Performance:
    """Filled in step by step by the runner.

    Attributes:
        began: On the monotonic clock, when the claim left.
        effect: The effect class of the action with these params; set by the check.
        dependency: The name of what it calls on, which is held where it asks for patience, and its breaker's; set by
            the check.
        declared: The settings of that; set by the check.
        ticket: What its breaker let it through with; None before, and where it did not.
        approvals: What it rests on; set by the policies.
        paid: What its retry was let through with; None where it is none, or nobody counts.
        reserved: What it asks of budgets; once it is intended, what it has reserved. Empty where none covers it.
        further_calls: For which its action has asked budgets, beside the attempt itself.
        arguments: The function's, typed; set by the check.
        intended: On the monotonic clock, when the intent was granted; None before.
        raised: What the action raised; None where it returned.
        outcome: What the action brought; None before it was performed.
        follow_ups: What it asked for, sealed; they are accepted if it succeeded.
    """

    attempt: Attempt
    spec: ActionSpec
    context: Context
    began: float
    effect: EffectClass = EffectClass.UNSAFE
    dependency: str = ""
    declared: Dependency = NO_DEPENDENCY
    ticket: Ticket | None = None
    approvals: tuple[UUID, ...] = ()
    paid: Paid | None = None
    reserved: tuple[Reservation, ...] = ()
    further_calls: int = 0
    arguments: dict[str, Any] = field(default_factory=dict)
    intended: float | None = None
    raised: BaseException | None = None
    outcome: Outcome | None = None
    follow_ups: tuple[Envelope, ...] = ()

    def verdict(self, state: State, why: str, **more: Any) -> Verdict:
        """End or park the job before its intent; in doubt, where an earlier attempt may have had its effect."""
        doubtful = self.attempt.maybe_happened
        becomes = State.IN_DOUBT if doubtful and state is not State.WAITING else state
        return Verdict(state=becomes, why=why, maybe_happened=doubtful, **more)

    @property
    def hurried(self) -> bool:
        """Whether the job's own deadline left the attempt less time than its action has."""
        left = self.attempt.deadline_left
        return left is not None and left < self.spec.policy.timeout

    @property
    def policy(self) -> Policy:
        """The action's; a job that is to bring a true result in place of a fallback does not end with another."""
        policy = self.spec.policy
        return policy if self.attempt.supersedes is None else replace(policy, on_exhausted="dead")

    def intent(self) -> Intent:
        """Return what is about to happen."""
        hook, timeout = self.spec.hook_for(self.effect), self.context.seconds_left
        return Intent(
            job_id=self.attempt.job_id,
            fence=self.attempt.fence,
            effect=self.effect,
            repeat_seconds=repeat_seconds(self.effect, self.spec.key_ttl),
            quiet_seconds=None if hook is None else timeout + hook.after,
            data={
                "effect": self.effect,
                "downstream_key": self.context.downstream_key(),
                "timeout": round(timeout, 3),
            }
            | ({"approvals": [str(each) for each in self.approvals]} if self.approvals else {}),
            approvals=self.approvals,
            asking=self.asking(self.reserved),
        )

    def asking(self, reservations: tuple[Reservation, ...]) -> Asking | None:
        """Return what the attempt asks of budgets; None where that is nothing."""
        attempt = self.attempt
        if not reservations:
            return None
        return Asking(job_id=attempt.job_id, fence=attempt.fence, attempt=attempt.number, reservations=reservations)

    def situation(self, now: float) -> Situation:
        """Return what `decide` needs to know, at `now` on the monotonic clock."""
        attempt, elapsed = self.attempt, now - self.began
        left = attempt.repeat_left if attempt.intended_before else repeat_seconds(self.effect, self.spec.key_ttl)
        return Situation(
            effect=self.effect,
            number=attempt.number,
            maybe_happened=attempt.maybe_happened,
            repeat_left=None if left is None else left - elapsed,
            deadline_left=None if attempt.deadline_left is None else attempt.deadline_left - elapsed,
            repairs=attempt.repairs,
        )

    @property
    def may_wait_seconds(self) -> float:
        """For how long the job can wait: until its deadline, or while a repeat is safe; may be infinite."""
        situation = self.situation(time.monotonic())
        repeat_left = situation.repeat_left if situation.maybe_happened else None
        return min((left for left in (situation.deadline_left, repeat_left) if left is not None), default=math.inf)

    def _whose_patience(self, verdict: Verdict) -> str | None:
        """Return who asked the attempt for patience; who is over a limit's rate waits on nobody."""
        return self.dependency if verdict.waiting_for == "rate" and self.intended is not None else None

    def settlement(self, verdict: Verdict, now: float) -> Settlement:
        """Return how the attempt ended, as it will be written."""
        usage, turn = self.context.usage, self.context.conversation
        follow_ups = self._brought(verdict, now)
        delay = 0.0 if self._can_be_looked_up(verdict) else verdict.delay
        hook = self.spec.hook_for(self.effect)
        return Settlement(
            job_id=self.attempt.job_id,
            fence=self.attempt.fence,
            attempt=self.attempt.number,
            was=State.CLAIMED if self.intended is None else State.RUNNING,
            becomes=verdict.state,
            kind="approval_requested" if verdict.asks else EVENT_KINDS.get(verdict.waiting_for or "", verdict.state),
            waiting_for=verdict.waiting_for,
            waiting_on=verdict.waiting_on or self._whose_patience(verdict),
            delay=delay,
            rings=delay is not None and delay <= LONGEST_SECONDS and verdict.waiting_for not in LEFT_TO_RELAYS,
            quiet_seconds=None if hook is None or self.intended is None else hook.after,
            unspent=verdict.unspent,
            maybe_happened=verdict.maybe_happened,
            result=verdict.result,
            error=verdict.error,
            latency_ms=None if self.intended is None else round((now - self.intended) * 1000, 3),
            tokens_in=usage.tokens_in,
            tokens_out=usage.tokens_out,
            cost_usd=usage.cost_usd,
            data=_event_data(verdict, follow_ups, usage),
            follow_ups=follow_ups,
            repair=verdict.repair,
            supersedes=self.attempt.supersedes,
            conversation=None if turn is None else (self.attempt.tenant, turn.id),
            asks=verdict.asks,
            messages=() if turn is None or verdict.state is not State.SUCCEEDED else tuple(turn.said),
            spent=self._spent(),
        )

    def _spent(self) -> Spent | None:
        # Also where the intent was not granted after all: nothing is left reserved for that.
        return spent(self.outcome, self.context.usage) if self.reserved else None

    def _brought(self, verdict: Verdict, now: float) -> tuple[Envelope, ...]:
        """Return the jobs that are accepted with the outcome."""
        if verdict.state is State.SUCCEEDED:
            return self.follow_ups
        if verdict.state is not State.DEGRADED:
            return ()
        left = self.situation(now).deadline_left
        later = true_result(self.spec, self.attempt, deadline_left=left)
        return () if later is None else (later,)

    def _can_be_looked_up(self, verdict: Verdict) -> bool:
        """Whether a look may settle the doubt. Where the follow-ups were refused there is none about the effect."""
        refused = isinstance(self.outcome, FollowUpsRefused)
        return verdict.state is State.IN_DOUBT and self.spec.verify is not None and not refused

    def ring(self) -> Ring:
        """Return the ring that wakes a worker for this job again."""
        return ring_of(self.attempt, self.spec)


def ring_of(job: Attempt, spec: ActionSpec) -> Ring:
    """Return the ring that wakes a worker for the job of an attempt."""
    together = spec.ring_size
    return Ring(job.job_id, job.action, job.queue, job.priority, job.traceparent, job.request_id, together)


def begin(attempt: Attempt, spec: ActionSpec, traceparent: str, began: float) -> Performance:
    """Make an attempt's context; decides nothing."""
    allowed = [spec.policy.timeout] + ([] if attempt.deadline_left is None else [attempt.deadline_left])
    turn = None if spec.conversation is None else _turn(attempt, spec.conversation)
    context = context_of(attempt, traceparent, deadline=began + min(allowed), turn=turn)
    return Performance(attempt, spec, context, began)


def context_of(attempt: Attempt, traceparent: str, *, deadline: float, turn: Turn | None = None) -> Context:
    """Return an attempt as its action sees it; `deadline` is on the monotonic clock."""
    return Context(
        job_id=attempt.job_id,
        action=attempt.action,
        tenant=attempt.tenant,
        attempt=attempt.number,
        request_id=attempt.request_id,
        user_id=attempt.user_id,
        agent_id=attempt.agent_id,
        traceparent=traceparent,
        deadline=deadline,
        log=AUTHORS_LOG,
        conversation=turn,
        repair=None if attempt.repair is None else Repair(attempt.repairs, **attempt.repair),
    )


def _turn(attempt: Attempt, parameter: str) -> Turn | None:
    """Return the turn that the attempt is; its params say it where the job was accepted before its action had any."""
    conversation_id = attempt.conversation_id or attempt.params.get(parameter)
    return Turn(conversation_id) if isinstance(conversation_id, str) else None


def log_settled(settlement: Settlement, verdict: Verdict) -> None:
    """Log what became of the job, once the ledger has it."""
    error = verdict.error or {}
    write = log.info if not error else log.warning
    write(
        "attempt.settled",
        state=settlement.becomes,
        why=verdict.why,
        delay_seconds=settlement.delay,
        latency_ms=settlement.latency_ms,
        error_type=error.get("type"),
        error=error.get("message"),
    )


def _event_data(verdict: Verdict, follow_ups: Sequence[Envelope], usage: Usage) -> dict[str, Any]:
    error = verdict.error and {k: verdict.error[k] for k in ("type", "message")}
    facts = {
        "why": verdict.why,
        "delay": verdict.delay,
        "waiting_for": verdict.waiting_for,
        "waiting_on": verdict.waiting_on,
        "behind": None if verdict.behind is None else str(verdict.behind),
        "rule": verdict.rule,
        "fallback": verdict.fallback,
        "budget": verdict.budget,
        "error": error,
        "follow_ups": len(follow_ups) if follow_ups and verdict.state is State.SUCCEEDED else None,
        "true_result": str(follow_ups[0].id) if follow_ups and verdict.state is State.DEGRADED else None,
        # The decision has the sums of all attempts alone.
        "tokens_in": usage.tokens_in,
        "tokens_out": usage.tokens_out,
        "cost_usd": None if usage.cost_usd is None else str(usage.cost_usd),
    }
    if verdict.asks is not None:
        facts |= _asked_facts(verdict.asks)
    return {name: fact for name, fact in facts.items() if fact is not None}


def _asked_facts(asks: Asked) -> dict[str, Any]:
    return {
        "approval": str(asks.id),
        "version": asks.rule_version,
        "reason": asks.reason,
        "approvers": list(asks.approvers),
        "roles": list(asks.roles),
        "quorum": asks.quorum,
        "expires_seconds": asks.expires_seconds,
    }

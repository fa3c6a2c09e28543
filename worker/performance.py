"""One attempt under way: what was claimed, what has come of it so far, and what the ledger is told of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from producer.envelope import Envelope
from producer.ledger.states import State
from producer.ring import Ring
from tasks import ActionSpec, Context, EffectClass, Turn
from tasks._outcomes import FollowUpsRefused, Outcome
from worker.attempt import Attempt, Intent, Settlement
from worker.log import AUTHORS_LOG, log
from worker.retry import Situation, Verdict, repeat_seconds
from worker.timer import LONGEST_SECONDS

# An attempt that ends its job is an event of the job's new state; one that does not says why it waits.
HOLDS = dict.fromkeys(("rate", "concurrency", "conversation"), "held")
EVENT_KINDS = {"retry": "attempt_failed", "worker": "returned", **HOLDS}


@dataclass(slots=True)
class Performance:
    """Filled in step by step by the runner.

    Attributes:
        began: On the monotonic clock, when the claim left.
        effect: The effect class of the action with these params; set by the check.
        dependency: What is held where it asks for patience; set by the check.
        arguments: The function's, typed; set by the check.
        intended: On the monotonic clock, when the intent was granted; None before.
        outcome: What the action brought; None before it was performed.
        follow_ups: What it asked for, sealed; they are accepted if it succeeded.
    """

    attempt: Attempt
    spec: ActionSpec
    context: Context
    began: float
    effect: EffectClass = EffectClass.UNSAFE
    dependency: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    intended: float | None = None
    outcome: Outcome | None = None
    follow_ups: tuple[Envelope, ...] = ()

    def verdict(self, state: State, why: str, **more: Any) -> Verdict:
        """End or park the job before its intent; in doubt, where an earlier attempt may have had its effect."""
        doubtful = self.attempt.maybe_happened
        becomes = State.IN_DOUBT if doubtful and state is not State.WAITING else state
        return Verdict(state=becomes, why=why, maybe_happened=doubtful, **more)

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
            },
        )

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
        )

    def settlement(self, verdict: Verdict, now: float) -> Settlement:
        """Return how the attempt ended, as it will be written."""
        usage, turn = self.context.usage, self.context.conversation
        follow_ups = self.follow_ups if verdict.state is State.SUCCEEDED else ()
        delay = 0.0 if self._can_be_looked_up(verdict) else verdict.delay
        hook = self.spec.hook_for(self.effect)
        return Settlement(
            job_id=self.attempt.job_id,
            fence=self.attempt.fence,
            attempt=self.attempt.number,
            was=State.CLAIMED if self.intended is None else State.RUNNING,
            becomes=verdict.state,
            kind=EVENT_KINDS.get(verdict.waiting_for or "", verdict.state),
            waiting_for=verdict.waiting_for,
            delay=delay,
            # What a stopping worker gives back is for others to ring, at once.
            rings=delay is not None and delay <= LONGEST_SECONDS and verdict.waiting_for != "worker",
            quiet_seconds=None if hook is None or self.intended is None else hook.after,
            unspent=verdict.unspent,
            maybe_happened=verdict.maybe_happened,
            result=verdict.result,
            error=verdict.error,
            latency_ms=None if self.intended is None else round((now - self.intended) * 1000, 3),
            tokens_in=usage.tokens_in,
            tokens_out=usage.tokens_out,
            cost_usd=usage.cost_usd,
            data=_event_data(verdict, len(follow_ups)),
            follow_ups=follow_ups,
            conversation=None if turn is None else (self.attempt.tenant, turn.id),
            messages=() if turn is None or verdict.state is not State.SUCCEEDED else tuple(turn.said),
        )

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


def _event_data(verdict: Verdict, follow_ups: int) -> dict[str, Any]:
    error = verdict.error and {k: verdict.error[k] for k in ("type", "message")}
    facts = {
        "why": verdict.why,
        "delay": verdict.delay,
        "waiting_for": verdict.waiting_for,
        "behind": None if verdict.behind is None else str(verdict.behind),
        "error": error,
        "follow_ups": follow_ups or None,
    }
    return {name: fact for name, fact in facts.items() if fact is not None}

"""What follows an attempt. Pure: reads no clock, database or setting: docs/retries-and-breakers.md tests it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from producer.ledger.deciding import Asked
from producer.ledger.states import State
from tasks._outcomes import Failure, FollowUpsRefused, InvalidResult, Outcome, Success
from tasks._policy import Policy
from tasks._retry_after import LONGEST_SECONDS
from tasks._spec import EffectClass

# A downstream key is trusted for four fifths of its life: clocks differ, and a request takes a while to arrive.
KEY_TRUST = 0.8
DEFAULT_HOLD_SECONDS = 5.0
# A hold spends no attempt, so this alone slows a server down that asks for none ("Retry-After: 0") again and again.
SHORTEST_HOLD_SECONDS = 0.1
# Why, for what, and how many attempts are given back, where a job waits.
WAITS = {
    "retry": ("retry", "retry", 0),
    "hold": ("held", "rate", 1),
    "return": ("returned", "worker", 1),
    "repair": ("repair", "repair", 1),
}
REPEATABLE = frozenset({EffectClass.PURE, EffectClass.IDEMPOTENT})
REFUSALS = frozenset({"refused", "follow-ups refused"})
# What `on_exhausted` says of a job for which everything was tried and nothing happened.
EXHAUSTED = {"dead": State.DEAD, "degrade": State.DEGRADED, "fail": State.FAILED}

Unrecorded = InvalidResult | FollowUpsRefused | Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What `decide` needs to know of an attempt that ended.

    Attributes:
        effect: The effect class of the action with these params.
        number: 1 for the first attempt.
        maybe_happened: Whether an earlier attempt may have had its effect.
        repeat_left: Seconds for which repeating the effect is safe; None is as the effect class has it: for ever where
            it can be repeated, and else not at all.
        deadline_left: Seconds until the job's deadline; None where it has none.
        repairs: Attempts so far that were to repair an answer, this one included.
    """

    effect: EffectClass
    number: int
    maybe_happened: bool
    repeat_left: float | None
    deadline_left: float | None
    repairs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of the job.

    Attributes:
        state: Where it goes.
        why: The rule that decided, for the event: one of the row names in docs/retries-and-breakers.md.
        waiting_for: ``retry``, ``repair``, ``retries``, ``breaker``, ``rate``, ``concurrency``, ``conversation``,
            ``policy``, ``budget`` or ``worker`` where it waits.
        waiting_on: Whose breaker, or whose patience, or which budget it waits for.
        delay: Seconds until it is due again; None where it does not wait.
        unspent: 1 where the attempt does not count.
        maybe_happened: Whether the effect may have happened by now and nobody can say.
        behind: The job that it waits for, where it waits for one.
        repair: What the next attempt is told of the answer that could not be used: ``{"error", "answer"}``.
        fallback: What stood in for a result, or could not: ``value``, or the function's place.
        rule: Under which there is no result, where `why` only says that the fallback failed; or the policy's.
        asks: What people are asked, where it becomes ``awaiting_approval``.
        budget: How the share of a budget stood that had too little left.
    """

    state: State
    why: str
    waiting_for: str | None = None
    waiting_on: str | None = None
    delay: float | None = None
    unspent: int = 0
    maybe_happened: bool = False
    result: Any = None
    error: Mapping[str, Any] | None = None
    behind: UUID | None = None
    repair: Mapping[str, Any] | None = None
    fallback: str | None = None
    rule: str | None = None
    asks: Asked | None = None
    budget: Mapping[str, Any] | None = None


def decide(policy: Policy, situation: Situation, outcome: Outcome, *, jitter: float) -> Verdict:
    """Say what follows an attempt that ended.

    Args:
        policy: The action's.
        situation: The attempt's.
        outcome: What it brought.
        jitter: In [0, 1); where in its bounds a delay falls.

    Returns:
        ``succeeded``, ``failed``, ``dead``, ``in_doubt``, or ``waiting`` with a delay; or ``degraded``, without the
        result, which is for the fallback to make.
    """
    if isinstance(outcome, Success):
        return Verdict(state=State.SUCCEEDED, why="succeeded", result=outcome.result)
    unknown = not isinstance(outcome, Failure) or outcome.effect == "unknown"
    maybe_happened = situation.effect is not EffectClass.PURE and (situation.maybe_happened or unknown)
    advice = _advice(policy, situation, outcome)
    delay = 0.0 if advice == "repair" else _delay(policy, situation.number, outcome, jitter=jitter)
    why_over = _why_over(policy, situation, outcome, delay=delay, maybe_happened=maybe_happened)
    if why_over is not None:
        return Verdict(
            state=_end_state(policy, why_over, maybe_happened=maybe_happened),
            why=why_over,
            maybe_happened=maybe_happened,
            error=outcome.error,
        )
    why, waiting_for, unspent = WAITS[advice]
    return Verdict(
        state=State.WAITING,
        why=why,
        waiting_for=waiting_for,
        delay=delay,
        unspent=unspent,
        maybe_happened=maybe_happened,
        error=outcome.error,
        repair=_repair(outcome) if advice == "repair" else None,
    )


def backoff(policy: Policy, attempt: int, *, jitter: float) -> float:
    """Return the seconds before the retry that follows `attempt`.

    The bound is ``retry_backoff * 2 ** (attempt - 1)``, at most ``retry_backoff_max``; with jitter the delay is
    drawn evenly from 0 to it (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    Milliseconds matter: whole seconds would line a crowd up again.
    """
    # Past 2^62 the bound has long met its maximum, and a float would overflow.
    bound = min(policy.retry_backoff_max, policy.retry_backoff * 2.0 ** min(attempt - 1, 62))
    return round(bound * jitter if policy.retry_jitter else bound, 3)


def repeat_seconds(effect: EffectClass, key_ttl: float | None) -> float | None:
    """Return for how long from its first intent an effect may be repeated; None is for ever."""
    match effect:
        case EffectClass.PURE | EffectClass.IDEMPOTENT:
            return None
        case EffectClass.KEYED:
            return KEY_TRUST * (key_ttl or 0.0)
        case EffectClass.VERIFIABLE | EffectClass.UNSAFE:
            return 0.0


def hold_seconds(asked: float | None, *, jitter: float) -> float:
    """Return for how long a dependency that asked for patience is left alone: never sooner than it asked."""
    if asked is None or not asked >= 0:  # negative, or NaN: nothing that can be waited for
        asked = DEFAULT_HOLD_SECONDS
    return round(min(max(asked, SHORTEST_HOLD_SECONDS), LONGEST_SECONDS) * (1 + jitter / 4), 3)


def _why_over(
    policy: Policy, situation: Situation, outcome: Unrecorded, *, delay: float, maybe_happened: bool
) -> str | None:
    """Return the rule under which the job is not tried again; None where it is."""
    advice = _advice(policy, situation, outcome)
    if isinstance(outcome, InvalidResult) and situation.effect not in REPEATABLE:
        return "invalid result after the effect"
    if advice == "refuse":
        return "refused" if isinstance(outcome, Failure) else "follow-ups refused"
    used_up = _used_up(policy, situation, advice)
    if used_up is not None:
        return used_up
    if situation.deadline_left is not None and delay >= situation.deadline_left:
        return "no time before the deadline"
    if maybe_happened and delay >= _repeat_left(situation):
        return "a repeat may be a second effect"
    return None


def _used_up(policy: Policy, situation: Situation, advice: str) -> str | None:
    if advice == "repair" and situation.repairs >= policy.max_repairs:
        return "out of repairs"
    if advice == "retry" and policy.max_retries is not None and situation.number > policy.max_retries:
        return "out of retries"
    return None


def _advice(policy: Policy, situation: Situation, outcome: Unrecorded) -> str:
    if isinstance(outcome, Failure):
        return outcome.advice
    if isinstance(outcome, FollowUpsRefused):  # as they would be again
        return "refuse"
    return "repair" if policy.max_repairs and situation.effect is EffectClass.PURE else "retry"


def _repair(outcome: Unrecorded) -> dict[str, Any] | None:
    if not isinstance(outcome, InvalidResult):
        return None
    return {"error": outcome.error["message"], "answer": outcome.answer}


def _repeat_left(situation: Situation) -> float:
    if situation.repeat_left is not None:
        return situation.repeat_left
    # The first intent named a class that can be repeated; a deploy since then may have declared another.
    return math.inf if situation.effect in REPEATABLE else 0.0


def _end_state(policy: Policy, why: str, *, maybe_happened: bool) -> State:
    if maybe_happened:
        return State.IN_DOUBT
    return State.FAILED if why in REFUSALS else EXHAUSTED[policy.on_exhausted]


def _delay(policy: Policy, number: int, outcome: Unrecorded, *, jitter: float) -> float:
    after = outcome.after if isinstance(outcome, Failure) else None
    if after is not None and not after >= 0:  # negative, or NaN: nothing that can be waited for
        after = None
    if isinstance(outcome, Failure) and outcome.advice == "return":
        return 0.0
    if isinstance(outcome, Failure) and outcome.advice == "hold":
        return hold_seconds(after, jitter=jitter)
    if after is None:
        return backoff(policy, number, jitter=jitter)
    # Never sooner than asked, and up to a quarter later, so that those who were all told the same spread out.
    return round(min(after, LONGEST_SECONDS) * (1 + jitter / 4), 3)

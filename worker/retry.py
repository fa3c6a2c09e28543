"""What follows an attempt. Pure: reads no clock, database or setting, so docs/retries.md is its test table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from producer.ledger.states import State
from tasks._outcomes import Failure, FollowUpsRefused, InvalidResult, Outcome, Success
from tasks._retry_after import LONGEST_SECONDS
from tasks._spec import EffectClass, Policy

# A downstream key is trusted for four fifths of its life: clocks differ, and a request takes a while to arrive.
KEY_TRUST = 0.8
DEFAULT_HOLD_SECONDS = 5.0
# A hold spends no attempt, so this alone slows a server down that asks for none ("Retry-After: 0") again and again.
SHORTEST_HOLD_SECONDS = 0.1
# Why, for what, and how many attempts are given back, where a job waits.
WAITS = {"retry": ("retry", "retry", 0), "hold": ("held", "rate", 1), "return": ("returned", "worker", 1)}
REPEATABLE = frozenset({EffectClass.PURE, EffectClass.IDEMPOTENT})
REFUSALS = frozenset({"refused", "follow-ups refused"})

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
    """

    effect: EffectClass
    number: int
    maybe_happened: bool
    repeat_left: float | None
    deadline_left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of the job.

    Attributes:
        state: Where it goes.
        why: The rule that decided, for the event: one of the row names in docs/retries.md.
        waiting_for: ``retry``, ``rate``, ``concurrency``, ``conversation`` or ``worker`` where it waits.
        delay: Seconds until it is due again; None where it does not wait.
        unspent: 1 where the attempt does not count.
        maybe_happened: Whether the effect may have happened by now and nobody can say.
        behind: The job that it waits for, where it waits for one.
    """

    state: State
    why: str
    waiting_for: str | None = None
    delay: float | None = None
    unspent: int = 0
    maybe_happened: bool = False
    result: Any = None
    error: Mapping[str, Any] | None = None
    behind: UUID | None = None


def decide(policy: Policy, situation: Situation, outcome: Outcome, *, jitter: float) -> Verdict:
    """Say what follows an attempt that ended.

    Args:
        policy: The action's.
        situation: The attempt's.
        outcome: What it brought.
        jitter: In [0, 1); where in its bounds a delay falls.

    Returns:
        ``succeeded``, ``failed``, ``dead``, ``in_doubt``, or ``waiting`` with a delay.
    """
    if isinstance(outcome, Success):
        return Verdict(state=State.SUCCEEDED, why="succeeded", result=outcome.result)
    unknown = not isinstance(outcome, Failure) or outcome.effect == "unknown"
    maybe_happened = situation.effect is not EffectClass.PURE and (situation.maybe_happened or unknown)
    advice = outcome.advice if isinstance(outcome, Failure) else "retry"
    delay = _delay(policy, situation.number, outcome, jitter=jitter)
    why_over = _why_over(policy, situation, outcome, delay=delay, maybe_happened=maybe_happened)
    if why_over is not None:
        return Verdict(
            state=_end_state(why_over, maybe_happened=maybe_happened),
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


def _why_over(
    policy: Policy, situation: Situation, outcome: Unrecorded, *, delay: float, maybe_happened: bool
) -> str | None:
    """Return the rule under which the job is not tried again; None where it is."""
    advice = outcome.advice if isinstance(outcome, Failure) else "retry"
    if isinstance(outcome, FollowUpsRefused):  # as they would be again
        advice = "refuse"
    if isinstance(outcome, InvalidResult) and situation.effect not in REPEATABLE:
        return "invalid result after the effect"
    if advice == "refuse":
        return "refused" if isinstance(outcome, Failure) else "follow-ups refused"
    if advice == "retry" and policy.max_retries is not None and situation.number > policy.max_retries:
        return "out of retries"
    if situation.deadline_left is not None and delay >= situation.deadline_left:
        return "no time before the deadline"
    if maybe_happened and delay >= _repeat_left(situation):
        return "a repeat may be a second effect"
    return None


def _repeat_left(situation: Situation) -> float:
    if situation.repeat_left is not None:
        return situation.repeat_left
    # The first intent named a class that can be repeated; a deploy since then may have declared another.
    return math.inf if situation.effect in REPEATABLE else 0.0


def _end_state(why: str, *, maybe_happened: bool) -> State:
    if maybe_happened:
        return State.IN_DOUBT
    return State.FAILED if why in REFUSALS else State.DEAD


def _delay(policy: Policy, number: int, outcome: Unrecorded, *, jitter: float) -> float:
    after = outcome.after if isinstance(outcome, Failure) else None
    if after is not None and not after >= 0:  # negative, or NaN: nothing that can be waited for
        after = None
    if isinstance(outcome, Failure) and outcome.advice == "return":
        return 0.0
    if isinstance(outcome, Failure) and outcome.advice == "hold":
        after = max(DEFAULT_HOLD_SECONDS if after is None else after, SHORTEST_HOLD_SECONDS)
    if after is None:
        return backoff(policy, number, jitter=jitter)
    # Never sooner than asked, and up to a quarter later, so that those who were all told the same spread out.
    return round(min(after, LONGEST_SECONDS) * (1 + jitter / 4), 3)

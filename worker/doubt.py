"""What a look at a job in doubt decides. Pure: reads no clock, database or setting, so docs/actions.md says it all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from producer.ledger.states import LOOKS, State
from tasks import ActionSpec, CannotTell, DidNotHappen, Happened
from tasks._verify import Answer, VerifyHook
from worker.attempt import Attempt, Settlement
from worker.timer import LONGEST_SECONDS

LONGEST_PAUSE_SECONDS = 3_600.0

Found = Literal["happened", "did_not_happen", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A job in doubt, as it was taken up to be looked at.

    Attributes:
        attempt: The last one, under the fence of this look.
        quiet_in: Seconds until none of its effects can arrive any more; 0 or less where that is past.
        absent_for: Seconds since a look first found, after that, that it had not happened; None where none did.
        looks_left: After this one.
        crashes: How many workers it took down.
    """

    attempt: Attempt
    quiet_in: float
    absent_for: float | None
    looks_left: int
    crashes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What becomes of a job in doubt after a look.

    Attributes:
        fence: The look's; a ruling on a job that has moved on changes nothing.
        attempt: The number of the last attempt.
        found: What the look said, of the three.
        why: The rule that decided, for the event.
        delay: Seconds until it is due, or looked at again; None where neither follows.
        absent: Whether this look counts as one that did not find the effect.
        looks_left: Where it stays in doubt.
        supersedes: The degraded job in whose place a result belongs.
    """

    job_id: UUID
    fence: int
    attempt: int
    found: Found
    becomes: State
    why: str
    delay: float | None = None
    absent: bool = False
    result: Any = None
    error: Mapping[str, Any] | None = None
    looks_left: int = 0
    supersedes: UUID | None = None

    @property
    def waiting_for(self) -> str | None:
        """What it waits for, if it does."""
        return "retry" if self.becomes is State.WAITING else None

    @property
    def rings(self) -> bool:
        """Whether this process will ring the job when it is due; else the relay does, without waiting longer."""
        return self.delay is not None and self.delay <= LONGEST_SECONDS

    def event_data(self) -> dict[str, Any]:
        """Return what the event says."""
        error = self.error and {name: self.error[name] for name in ("type", "message")}
        facts = {"verdict": self.found, "to": self.becomes, "why": self.why, "delay": self.delay, "error": error}
        if self.becomes is State.IN_DOUBT:
            facts["looks_left"] = self.looks_left
        return {name: fact for name, fact in facts.items() if fact is not None}


Ended = Settlement | Ruling  # what becomes of a job that a ring named


def rule(
    spec: ActionSpec,
    hook: VerifyHook,
    doubt: Doubt,
    answer: Answer,
    *,
    crash_cap: int,
    error: Mapping[str, Any] | None = None,
) -> Ruling:
    """Say what follows a look.

    That it happened is believed at once. That it did not is believed only of a look made when no effect could arrive
    any more, and only if an earlier such look said so too, `hook.every` before.

    Args:
        spec: The action.
        hook: Its look-up.
        doubt: The job, as it was before the look.
        answer: What the look-up said; a result as plain JSON.
        crash_cap: Workers that a job may take down before it is left alone.
        error: What went wrong where it cannot tell.
    """
    match answer:
        case Happened(result):
            return _ruling(doubt, "happened", State.SUCCEEDED, "it happened", result=result)
        case DidNotHappen():
            return _not_there(spec, hook, doubt, crash_cap)
        case CannotTell():
            looked = LOOKS - doubt.looks_left - 1
            pause = min(max(LONGEST_PAUSE_SECONDS, hook.every), hook.every * 2.0**looked)
            return _stays(doubt, "unknown", "nobody can tell", pause, error=error)


def _not_there(spec: ActionSpec, hook: VerifyHook, doubt: Doubt, crash_cap: int) -> Ruling:
    if doubt.quiet_in > 0:
        return _stays(doubt, "did_not_happen", "it may still arrive", max(hook.every, doubt.quiet_in))
    absent_for = 0.0 if doubt.absent_for is None else doubt.absent_for
    if doubt.absent_for is None or absent_for < hook.every:
        return _stays(doubt, "did_not_happen", "not there, once", hook.every - absent_for, absent=True)
    retries = spec.policy.max_retries
    if retries is not None and doubt.attempt.number > retries:
        return _ruling(doubt, "did_not_happen", State.DEAD, "out of retries")
    if doubt.crashes >= crash_cap:
        return _ruling(doubt, "did_not_happen", State.DEAD, "it took too many workers down")
    return _ruling(doubt, "did_not_happen", State.WAITING, "it did not happen", delay=0.0)


def _stays(doubt: Doubt, found: Found, why: str, pause: float, **more: Any) -> Ruling:
    delay = round(pause, 3) if doubt.looks_left else None
    return _ruling(doubt, found, State.IN_DOUBT, why, delay=delay, looks_left=doubt.looks_left, **more)


def _ruling(doubt: Doubt, found: Found, becomes: State, why: str, **more: Any) -> Ruling:
    attempt = doubt.attempt
    return Ruling(
        job_id=attempt.job_id,
        fence=attempt.fence,
        attempt=attempt.number,
        found=found,
        becomes=becomes,
        why=why,
        supersedes=attempt.supersedes,
        **more,
    )

"""One attempt at a job, in eight steps: claim, check, admit, intend, perform, validate, decide, settle.

Read `Runner.run` first; every step below it is in that order. Whatever kills this process between two steps leaves
the ledger saying truly how far the attempt had come: before the intent nothing has happened outside, after it the
effect class says what may follow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.exc import InterfaceError, OperationalError

from producer.errors import SurefootError
from producer.ledger.states import State
from producer.trace import child_of
from tasks import ActionSpec
from tasks._outcomes import Failure, InvalidResult, Outcome, Success, classify, describe
from worker.attempt import Attempt, Settlement
from worker.breaker import Holds
from worker.leases import Leases
from worker.log import bound, log
from worker.perform import Performer
from worker.performance import Performance, begin
from worker.retry import Verdict, decide
from worker.timer import RingTimer
from worker.writer import Writer

# How long to wait between tries to reach a ledger that is away, growing up to the last.
LEDGER_PAUSES = (0.05, 0.1, 0.25, 0.5, 1.0)

T = TypeVar("T")


class LeaseLost(SurefootError):
    """The job may be somebody else's by now."""


@dataclass(frozen=True, slots=True)
class Runner:
    """Performs jobs in one worker process. The parts are this process's own; `jitter` draws from [0, 1)."""

    actions: Mapping[str, ActionSpec]
    writer: Writer
    leases: Leases
    holds: Holds
    performer: Performer
    timer: RingTimer
    jitter: Callable[[], float]

    def run(self, action: str, job_id: UUID) -> Settlement | None:
        """Try the action's job once, if it is due and nobody's.

        Returns:
            How the attempt ended; None where there was none to make: the ring was a repeat, early, or for a job
            that has ended.

        Raises:
            LeaseLost: If the job was taken over before its effect; it is its new owner's.
            OperationalError: If the ledger stayed away for as long as the lease held; the rescue will find the job.
        """
        began = time.monotonic()
        attempt = self.claim(action, job_id)
        if attempt is None:
            log.debug("ring.idle", job_id=str(job_id))
            return None
        traceparent = child_of(attempt.traceparent)
        with bound(attempt, traceparent), self.leases.held(job_id, attempt.fence, began):
            performance = begin(attempt, self.actions[action], traceparent, began)
            verdict = self.check(performance) or self.admit(performance) or self.intend(performance)
            if verdict is None:
                performance.outcome = self.validate(performance, self.perform(performance))
                verdict = self.decide(performance, performance.outcome)
            return self.settle(performance, verdict)

    def claim(self, action: str, job_id: UUID) -> Attempt | None:
        """Step 1: become the job's owner, with a lease and a fence; not of another version's job."""
        version = self.actions[action].version
        claimed = self._reaching_ledger(lambda: self.writer.claim(action, version, [job_id]), until=None)
        return claimed[0] if claimed else None

    def check(self, performance: Performance) -> Verdict | None:
        """Step 2: is it still wanted, and do its params fit the action as it is now?"""
        attempt, spec = performance.attempt, performance.spec
        if attempt.cancel_requested:
            return performance.verdict(State.CANCELLED, "cancelled")
        if attempt.maybe_happened and attempt.repeat_left is not None and attempt.repeat_left <= 0:
            # It waited for longer than the other side remembers our key: the worker was down, or the queue long.
            return performance.verdict(State.IN_DOUBT, "a repeat may be a second effect")
        try:
            performance.effect = spec.effect_of(attempt.params)
            performance.dependency = spec.dependency_of(attempt.params)
            performance.arguments = spec.arguments(attempt.params, performance.context)
        except Exception as error:  # noqa: BLE001  the author's types and effect rule may raise anything
            return performance.verdict(State.FAILED, "params refused", error=describe(error))
        return None

    def admit(self, performance: Performance) -> Verdict | None:
        """Step 3: has the dependency asked the fleet for patience? Then wait; that spends no attempt."""
        held = self.holds.seconds_held(performance.dependency)
        if not held:
            return None
        delay = round(held * (1 + self.jitter() / 4), 3)
        return performance.verdict(State.WAITING, "dependency held", waiting_for="rate", delay=delay)

    def intend(self, performance: Performance) -> Verdict | None:
        """Step 4: commit that the effect is about to happen, before it can."""
        job_id, intent = performance.attempt.job_id, performance.intent()
        granted = self._reaching_ledger(lambda: self.writer.intend([intent]), until=job_id).get(job_id, "lost")
        if granted == "lost":
            raise LeaseLost(f"job {job_id} was taken over, or its lease ran out, before its effect")
        if granted == "cancelled":
            return performance.verdict(State.CANCELLED, "cancelled")
        if granted == "expired":
            return performance.verdict(State.EXPIRED, "deadline passed")
        performance.intended = time.monotonic()
        log.debug("attempt.intended", effect=performance.effect)
        return None

    def perform(self, performance: Performance) -> Any:
        """Step 5: call the action, within its deadline. Returns what it returned, or a `Failure`."""
        spec, policy, left = performance.spec, performance.spec.policy, performance.context.seconds_left
        try:
            return self.performer.perform(spec, performance.arguments, timeout=left)
        except BaseException as error:  # noqa: BLE001  SystemExit and its like must not make a job vanish
            return classify(error, autoretry_for=policy.autoretry_for, dont_autoretry_for=policy.dont_autoretry_for)

    def validate(self, performance: Performance, returned: Any) -> Outcome:
        """Step 6: hold the result to the action's declared type."""
        if isinstance(returned, Failure):
            return returned
        try:
            return Success(performance.spec.plain_result(returned))
        except Exception as error:  # noqa: BLE001  the author's types may raise anything
            return InvalidResult(describe(error))

    def decide(self, performance: Performance, outcome: Outcome) -> Verdict:
        """Step 7: say what becomes of the job."""
        situation = performance.situation(time.monotonic())
        return decide(performance.spec.policy, situation, outcome, jitter=self.jitter())

    def settle(self, performance: Performance, verdict: Verdict) -> Settlement:
        """Step 8: write the outcome, its decision's and its event's, in one fenced transaction; ring what waits."""
        job_id, outcome = performance.attempt.job_id, performance.outcome
        settlement = performance.settlement(verdict, time.monotonic())
        self.leases.settling(job_id)
        settled = self._reaching_ledger(lambda: self.writer.settle([settlement]), until=job_id)
        if settled.get(job_id) == "late":
            log.warning("attempt.late", would_be=settlement.becomes)
            return settlement
        _log_settled(settlement, verdict)
        if isinstance(outcome, Failure) and outcome.advice == "hold" and verdict.delay is not None:
            self.holds.hold(performance.dependency, verdict.delay, why=outcome.error["message"])
        if settlement.rings and verdict.delay is not None:
            self.timer.ring_in(verdict.delay, performance.ring())
        return settlement

    def _reaching_ledger(self, write: Callable[[], T], *, until: UUID | None) -> T:
        """Repeat a write that the ledger did not answer, as long as the job's lease may still hold.

        Every write here can be repeated: the fence and the state that it names make a second landing a no-op.
        """
        tries = 0
        while True:
            try:
                return write()
            except (OperationalError, InterfaceError) as error:  # away, restarting, a lock or a statement timed out
                pause = LEDGER_PAUSES[min(tries, len(LEDGER_PAUSES) - 1)]
                tries += 1
                lasting = tries <= len(LEDGER_PAUSES) if until is None else self.leases.seconds_left(until) > pause
                if not lasting:
                    raise
                log.warning("ledger.unreachable", error=str(error.orig), pause_seconds=pause)
                time.sleep(pause)


def _log_settled(settlement: Settlement, verdict: Verdict) -> None:
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

"""One attempt at a job, in eight steps: claim, check, admit, intend, perform, validate, decide, settle.

Read `Runner.run` first; every step below it is in that order. Whatever kills this process between two steps leaves
the ledger saying truly how far the attempt had come: before the intent nothing has happened outside, after it the
effect class says what may follow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from producer.announce import Announcer
from producer.errors import RequestRefused
from producer.ledger.states import AT_REST, State
from tasks import ActionSpec
from tasks._classify import classify
from tasks._outcomes import Failure, FollowUpsRefused, InvalidAnswer, InvalidResult, Outcome, Success, describe, invalid
from worker.attempt import Attempt, Settlement
from worker.cut_offs import LEASE_OVER, cut_off_failure, reason_of_cut_off, without_time
from worker.doubt import Ended
from worker.fallback import failed
from worker.follow_ups import FollowUps
from worker.gates import Gates
from worker.leases import LeaseLost, Leases
from worker.log import bound, log
from worker.loop import all_but
from worker.meter import meter
from worker.perform import Performer, to_the_end
from worker.performance import Performance, begin, log_settled
from worker.retry import Verdict, decide, hold_seconds
from worker.served import Served
from worker.spans import attempt_span
from worker.statements import Wanted
from worker.timer import RingTimer
from worker.validation import Validation
from worker.verifier import Verifier
from worker.writer import Writer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Runner:
    """Performs jobs on a worker process's loop. The parts are this process's own; `jitter` draws from [0, 1)."""

    actions: Mapping[str, ActionSpec]
    writer: Writer
    leases: Leases
    gates: Gates
    follow_ups: FollowUps
    performer: Performer
    validation: Validation
    verifier: Verifier
    timer: RingTimer
    announcer: Announcer
    served: Served
    jitter: Callable[[], float]

    async def run(self, action: str, job_ids: Sequence[UUID]) -> list[Ended]:
        """Try once each of the action's jobs that one ring names, if it is due and nobody's; all at the same time.

        Where the action can look its effect up, those that are in doubt are looked at.

        Returns:
            How the attempts ended, and what the looks found. There is neither for a job whose ring was a repeat or
            early, or that has ended.

        Raises:
            LeaseLost: If the jobs, each of them, were taken over before their effects; they are their new owners'.
            OperationalError: If the ledger stayed away for as long as the leases held; the rescue will find the jobs.
            Closed: If the worker is stopping and has not claimed a job yet; the ring should go to another.
            CancelledError: If the ring was cut off before a job was claimed. Later, the attempts are settled as far as
                they came, and this returns.
        """
        spec = self.actions[action]
        settlements = await self._run(spec, job_ids)
        if spec.verify is None or len(settlements) == len(job_ids):
            return [*settlements]
        tried = {settlement.job_id for settlement in settlements}
        others = [job_id for job_id in job_ids if job_id not in tried]
        return [*settlements, *await self.verifier.verify(spec, spec.verify, others)]

    async def _run(self, spec: ActionSpec, job_ids: Sequence[UUID]) -> list[Settlement]:
        if await self.gates.policies.leaves(spec.name):
            return []
        if spec.is_async or len(job_ids) == 1:
            return await self._run_together(spec, job_ids)
        # Each sync attempt takes a thread; one that has none yet leaves its job unclaimed.
        return _flat(await _all_but_lost(self._run_together(spec, [job_id]) for job_id in job_ids))

    async def _run_together(self, spec: ActionSpec, job_ids: Sequence[UUID]) -> list[Settlement]:
        async with self.performer.room(spec).take(len(job_ids)):
            began = time.monotonic()
            attempts = await self.claim(spec, job_ids)
            if len(attempts) == 1:
                return [await self.attempt(spec, attempts[0], began)]
            return await _all_but_lost(self.attempt(spec, attempt, began) for attempt in attempts)

    async def attempt(self, spec: ActionSpec, attempt: Attempt, began: float) -> Settlement:
        """Take one claimed job through the other seven steps; `began` is when the claim left."""
        # The lease first: nothing may go wrong before it is this block's to let go of.
        with self.leases.held(*attempt.lease), attempt_span(attempt) as span, bound(attempt, span.traceparent):
            performance = begin(attempt, spec, span.traceparent, began)
            try:
                verdict = (
                    self.check(performance)
                    or await self.admit(performance)
                    or self.stopped(performance)
                    or await self.intend(performance)
                )
                if verdict is None:
                    returned = await self.perform(performance)
                    self.gates.report(performance, returned)
                    performance.outcome = await self.validate(performance, returned)
                    verdict = await self.decide(performance, performance.outcome)
                settlement = await self.settle(performance, verdict)
                span.settled(settlement)
                return settlement
            finally:
                await self.gates.leave(performance)

    async def claim(self, spec: ActionSpec, job_ids: Sequence[UUID]) -> list[Attempt]:
        """Step 1: become the jobs' owner, each with a lease and a fence; not of another version's job."""
        attempts = await self.writer.claim([Wanted(spec.name, spec.version, job_id) for job_id in job_ids])
        self.served.note(attempts)
        if len(attempts) < len(job_ids):
            claimed = {attempt.job_id for attempt in attempts}
            log.debug("ring.idle", job_ids=[str(job_id) for job_id in job_ids if job_id not in claimed])
        return attempts

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
            performance.dependency, performance.declared = spec.breaker_of(attempt.tenant, attempt.params)
            performance.arguments = spec.arguments(attempt.params, performance.context)
        except BaseException as error:  # noqa: BLE001  the author's types and rules may raise anything, SystemExit too
            return performance.verdict(State.FAILED, "params refused", error=describe(error))
        return None

    async def admit(self, performance: Performance) -> Verdict | None:
        """Step 3: is another turn first, does the dependency stand, does enough of it run? Then wait, or degrade."""
        return await self.gates.admit(performance)

    def stopped(self, performance: Performance) -> Verdict | None:
        """Give the job back where this worker is told to stop: nothing has happened yet."""
        if reason_of_cut_off() is None:
            return None
        return performance.verdict(State.WAITING, "returned", waiting_for="worker", delay=0.0)

    async def intend(self, performance: Performance) -> Verdict | None:
        """Step 4: commit that the effect is about to happen, and what it may cost, before it can."""
        seconds_left = partial(self.leases.seconds_left, *performance.attempt.lease)
        granted = await self.gates.budgets.intend(performance, seconds_left=seconds_left)
        if isinstance(granted, Verdict):
            return granted
        if granted == "lost":
            raise LeaseLost(f"job {performance.attempt.job_id} was taken over, or its lease ran out, before its effect")
        if granted == "cancelled":
            return performance.verdict(State.CANCELLED, "cancelled")
        if granted == "expired":
            return performance.verdict(State.EXPIRED, "deadline passed")
        if granted == "unapproved":
            return performance.verdict(State.WAITING, "approval gone", waiting_for="policy", delay=1.0)
        performance.intended = time.monotonic()
        log.debug("attempt.intended", effect=performance.effect)
        return None

    async def perform(self, performance: Performance) -> Any:
        """Step 5: call the action, within its deadline. Returns what it returned, or how it failed.

        A process that stood still since its intent may find its lease over, and the job with another worker; one with
        too much to do may have no time left.
        """
        spec, left = performance.spec, performance.context.seconds_left
        if (reason := reason_of_cut_off()) is not None:
            return cut_off_failure(reason, effect="none")
        if self.leases.seconds_left(*performance.attempt.lease) <= 0:
            return cut_off_failure(LEASE_OVER, effect="none")
        if left <= 0:
            return without_time()
        _name_task(f"{spec.name} {performance.attempt.job_id}")
        try:
            return await self.performer.perform(spec, performance.arguments, seconds=left)
        except BaseException as error:  # noqa: BLE001  SystemExit and its like must not make a job vanish
            performance.raised = error
            if isinstance(error, asyncio.CancelledError) and (reason := reason_of_cut_off()) is not None:
                return cut_off_failure(reason, effect="unknown")
            return invalid(error, error.answer) if isinstance(error, InvalidAnswer) else classify(error, spec)

    async def validate(self, performance: Performance, returned: Any) -> Outcome:
        """Step 6: hold the result to what the action declares, and its follow-ups to what workers have published."""
        if isinstance(returned, (Failure, InvalidResult)):
            return returned
        outcome = await self.validation.outcome(performance, returned)
        if not isinstance(outcome, Success) or not performance.context.follow_ups:
            return outcome
        read = partial(self.writer.actions, seconds_left=partial(self.leases.seconds_left, *performance.attempt.lease))
        try:
            performance.follow_ups = await to_the_end(self.follow_ups.seal(performance.context, read))
        except DBAPIError:
            raise
        except BaseException as error:  # noqa: BLE001  as above: the author's own params may say how they are written
            return FollowUpsRefused(describe(error))
        return outcome

    async def decide(self, performance: Performance, outcome: Outcome) -> Verdict:
        """Step 7: say what becomes of the job; where its fallback is to stand in, have that made."""
        situation = performance.situation(time.monotonic())
        verdict = decide(performance.policy, situation, outcome, jitter=self.jitter())
        if verdict.state is not State.DEGRADED:
            return verdict
        return await self.gates.fallbacks.degrade(performance, rule=verdict.why, error=verdict.error)

    async def settle(self, performance: Performance, verdict: Verdict) -> Settlement:
        """Step 8: write the outcome, its decision's and its event's, in one fenced transaction; ring what waits."""
        attempt, outcome = performance.attempt, performance.outcome
        settlement = performance.settlement(verdict, time.monotonic())
        self.leases.settling(*attempt.lease)
        seconds_left = partial(self.leases.seconds_left, *attempt.lease)
        try:
            settled = await self.writer.settle(settlement, seconds_left=seconds_left)
        except (DBAPIError, RequestRefused) as error:
            return await self.settle(performance, await self._instead(performance, verdict, error))
        if settled == "late":
            meter().late()
            log.warning("attempt.late", would_be=settlement.becomes)
            return settlement
        if settlement.becomes in AT_REST and settlement.delay is None:  # else it is looked up
            self.announcer.announce([attempt.job_id])
        if settlement.conversation is not None:
            await self.gates.conversations.hand_over(settlement, settlement.conversation)
        meter().settled(attempt.action, settlement)
        log_settled(settlement, verdict)
        if isinstance(outcome, Failure) and outcome.advice == "hold":  # for everybody, whatever became of this job
            # As long as was asked for: whoever heard it comes back within a quarter of that afterwards.
            held = hold_seconds(outcome.after, jitter=0)
            with suppress(asyncio.CancelledError):  # it is settled, and that is what counts
                await self.gates.holds.hold(performance.dependency, held, why=outcome.error["message"])
        if settlement.rings and settlement.delay is not None:
            self.timer.ring_in(settlement.delay, performance.ring())
        return settlement

    async def _instead(self, performance: Performance, verdict: Verdict, error: DBAPIError | RequestRefused) -> Verdict:
        """Say what becomes of a job whose result was valid, where the ledger will not have it, or what it brings."""
        if isinstance(error, (OperationalError, InterfaceError)):
            raise error
        refusal = describe(error if isinstance(error, RequestRefused) else error.orig or error)
        if verdict.state is State.DEGRADED:
            return failed(verdict.why, verdict.fallback, verdict.error, refusal)
        if isinstance(error, RequestRefused):
            performance.outcome = FollowUpsRefused(refusal)
        elif isinstance(performance.outcome, Success):
            performance.outcome = InvalidResult(refusal)
        else:
            raise error
        return await self.decide(performance, performance.outcome)

    def stats(self) -> dict[str, Any]:
        """Return what `celery inspect stats` tells of this process; plain JSON."""
        places, threads = self.performer.places, self.performer.thread_places
        return {
            "jobs-in-flight": places.taken + threads.taken,
            "max-async-jobs": places.limit,
            "max-threads": threads.limit,
            "threads-left-behind": self.performer.threads.left_behind,
            "deaf-actions": self.performer.deaf,
            "leases": self.leases.count,
        }


def _name_task(name: str) -> None:
    """Have the watchdog name the action that keeps the loop."""
    task = asyncio.current_task()
    if task is not None:
        task.set_name(name)


async def _all_but_lost(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await attempts; one that lost its job must not hide from Celery what became of those that were rung with it."""

    def say(error: Exception) -> None:
        log.warning("attempt.lost", error=str(error), error_type=type(error).__name__)

    return await all_but((LeaseLost, OperationalError), works, log_lost=say)


def _flat(rings: Iterable[list[Settlement]]) -> list[Settlement]:
    return [settlement for ring in rings for settlement in ring]

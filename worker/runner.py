"""One attempt at a job, in eight steps: claim, check, admit, intend, perform, validate, decide, settle.

Read `Runner.run` first; every step below it is in that order. Whatever kills this process between two steps leaves
the ledger saying truly how far the attempt had come: before the intent nothing has happened outside, after it the
effect class says what may follow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from producer.announce import Announcer
from producer.errors import RequestRefused
from producer.ledger.states import AT_REST, State
from producer.trace import child_of
from tasks import ActionSpec
from tasks._outcomes import Effect, Failure, FollowUpsRefused, InvalidResult, Outcome, Success, classify, describe
from worker.attempt import Attempt, Settlement
from worker.breaker import Holds
from worker.conversations import Conversations
from worker.doubt import Ended
from worker.follow_ups import FollowUps
from worker.leases import LeaseLost, Leases
from worker.limits import Limits
from worker.log import bound, log
from worker.loop import all_of, cut_off
from worker.perform import Performer, to_the_end
from worker.performance import Performance, begin, log_settled
from worker.retry import Verdict, decide
from worker.statements import Wanted
from worker.timer import RingTimer
from worker.verifier import Verifier
from worker.writer import Writer

LEASE_OVER = "its lease was over before its effect"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Runner:
    """Performs jobs on a worker process's loop. The parts are this process's own; `jitter` draws from [0, 1)."""

    actions: Mapping[str, ActionSpec]
    writer: Writer
    leases: Leases
    holds: Holds
    limits: Limits
    conversations: Conversations
    follow_ups: FollowUps
    performer: Performer
    verifier: Verifier
    timer: RingTimer
    announcer: Announcer
    jitter: Callable[[], float]

    async def run(self, action: str, job_ids: Sequence[UUID]) -> list[Ended]:
        """Try once each of the action's jobs that one ring names, if it is due and nobody's; all at the same time.

        Where the action can look its effect up, those that are in doubt are looked at.

        Returns:
            How the attempts ended, and what the looks found. There is neither for a job whose ring was a repeat or
            early, or that has ended.

        Raises:
            LeaseLost: If a job was taken over before its effect; it is its new owner's.
            OperationalError: If the ledger stayed away for as long as a lease held; the rescue will find the job.
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
        if spec.is_async or len(job_ids) == 1:
            return await self._run_together(spec, job_ids)
        # Each sync attempt takes a thread; one that has none yet leaves its job unclaimed.
        return _flat(await all_of(self._run_together(spec, [job_id]) for job_id in job_ids))

    async def _run_together(self, spec: ActionSpec, job_ids: Sequence[UUID]) -> list[Settlement]:
        async with self.performer.room(spec).take(len(job_ids)):
            began = time.monotonic()
            attempts = await self.claim(spec, job_ids)
            if len(attempts) == 1:
                return [await self.attempt(spec, attempts[0], began)]
            return await all_of(self.attempt(spec, attempt, began) for attempt in attempts)

    async def attempt(self, spec: ActionSpec, attempt: Attempt, began: float) -> Settlement:
        """Take one claimed job through the other seven steps; `began` is when the claim left."""
        # The lease first: nothing may go wrong before it is this block's to let go of.
        with self.leases.held(*attempt.lease), bound(attempt, traceparent := child_of(attempt.traceparent)):
            performance = begin(attempt, spec, traceparent, began)
            try:
                verdict = (
                    self.check(performance)
                    or await self.admit(performance)
                    or self.stopped(performance)
                    or await self.intend(performance)
                )
                if verdict is None:
                    performance.outcome = await self.validate(performance, await self.perform(performance))
                    verdict = self.decide(performance, performance.outcome)
                return await self.settle(performance, verdict)
            finally:
                with suppress(asyncio.CancelledError):  # the place ends with its lease, too
                    await self.limits.release(spec, attempt.job_id)

    async def claim(self, spec: ActionSpec, job_ids: Sequence[UUID]) -> list[Attempt]:
        """Step 1: become the jobs' owner, each with a lease and a fence; not of another version's job."""
        attempts = await self.writer.claim([Wanted(spec.name, spec.version, job_id) for job_id in job_ids])
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
            performance.dependency = spec.dependency_of(attempt.params)
            performance.arguments = spec.arguments(attempt.params, performance.context)
        except BaseException as error:  # noqa: BLE001  the author's types and rules may raise anything, SystemExit too
            return performance.verdict(State.FAILED, "params refused", error=describe(error))
        return None

    async def admit(self, performance: Performance) -> Verdict | None:
        """Step 3: is another turn first, has the dependency asked for patience, does enough of it run? Then wait.

        That spends no attempt.
        """
        if (turn := performance.context.conversation) is not None:
            seconds_left = partial(self.leases.seconds_left, *performance.attempt.lease)
            behind = await self.conversations.take(performance, turn, seconds_left=seconds_left)
            if behind is not None:
                return behind
        held, blocked = 0.0, None
        with suppress(asyncio.CancelledError):  # the next step gives the job back
            held = await self.holds.seconds_held(performance.dependency)
            blocked = None if held else await self.limits.admit(performance.spec, performance.ring())
        if held:
            delay = round(held * (1 + self.jitter() / 4), 3)
            return performance.verdict(State.WAITING, "dependency held", waiting_for="rate", delay=delay)
        if blocked is None:
            return None
        return performance.verdict(State.WAITING, blocked.why, waiting_for=blocked.waiting_for, delay=blocked.delay)

    def stopped(self, performance: Performance) -> Verdict | None:
        """Give the job back where this worker is told to stop: nothing has happened yet."""
        if _reason() is None:
            return None
        return performance.verdict(State.WAITING, "returned", waiting_for="worker", delay=0.0)

    async def intend(self, performance: Performance) -> Verdict | None:
        """Step 4: commit that the effect is about to happen, before it can."""
        seconds_left = partial(self.leases.seconds_left, *performance.attempt.lease)
        granted = await self.writer.intend(performance.intent(), seconds_left=seconds_left)
        if granted == "lost":
            raise LeaseLost(f"job {performance.attempt.job_id} was taken over, or its lease ran out, before its effect")
        if granted == "cancelled":
            return performance.verdict(State.CANCELLED, "cancelled")
        if granted == "expired":
            return performance.verdict(State.EXPIRED, "deadline passed")
        performance.intended = time.monotonic()
        log.debug("attempt.intended", effect=performance.effect)
        return None

    async def perform(self, performance: Performance) -> Any:
        """Step 5: call the action, within its deadline. Returns what it returned, or a `Failure`.

        A process that stood still since its intent may find its lease over, and the job with another worker.
        """
        spec, policy = performance.spec, performance.spec.policy
        if (reason := _reason()) is not None:
            return cut_off_failure(reason, effect="none")
        if self.leases.seconds_left(*performance.attempt.lease) <= 0:
            return cut_off_failure(LEASE_OVER, effect="none")
        _name_task(f"{spec.name} {performance.attempt.job_id}")
        try:
            left = performance.context.seconds_left
            return await self.performer.perform(spec, performance.arguments, seconds=left)
        except BaseException as error:  # noqa: BLE001  SystemExit and its like must not make a job vanish
            if isinstance(error, asyncio.CancelledError) and (reason := _reason()) is not None:
                return cut_off_failure(reason, effect="unknown")
            return classify(error, autoretry_for=policy.autoretry_for, dont_autoretry_for=policy.dont_autoretry_for)

    async def validate(self, performance: Performance, returned: Any) -> Outcome:
        """Step 6: hold the result to the action's declared type, and its follow-ups to what workers have published."""
        if isinstance(returned, Failure):
            return returned
        try:
            success = Success(performance.spec.plain_result(returned))
        except BaseException as error:  # noqa: BLE001  as in the check; nothing is awaited, so it is no cancellation
            return InvalidResult(describe(error))
        if not performance.context.follow_ups:
            return success
        read = partial(self.writer.actions, seconds_left=partial(self.leases.seconds_left, *performance.attempt.lease))
        try:
            performance.follow_ups = await to_the_end(self.follow_ups.seal(performance.context, read))
        except DBAPIError:
            raise
        except BaseException as error:  # noqa: BLE001  as above: the author's own params may say how they are written
            return FollowUpsRefused(describe(error))
        return success

    def decide(self, performance: Performance, outcome: Outcome) -> Verdict:
        """Step 7: say what becomes of the job."""
        situation = performance.situation(time.monotonic())
        return decide(performance.spec.policy, situation, outcome, jitter=self.jitter())

    async def settle(self, performance: Performance, verdict: Verdict) -> Settlement:
        """Step 8: write the outcome, its decision's and its event's, in one fenced transaction; ring what waits."""
        attempt, outcome = performance.attempt, performance.outcome
        settlement = performance.settlement(verdict, time.monotonic())
        self.leases.settling(*attempt.lease)
        seconds_left = partial(self.leases.seconds_left, *attempt.lease)
        try:
            settled = await self.writer.settle(settlement, seconds_left=seconds_left)
        except DBAPIError as error:
            if isinstance(error, (OperationalError, InterfaceError)) or not isinstance(outcome, Success):
                raise
            # A result that was valid and that Postgres will not have: the attempt must not vanish with it.
            performance.outcome = InvalidResult(describe(error.orig or error))
            return await self.settle(performance, self.decide(performance, performance.outcome))
        except RequestRefused as error:
            performance.outcome = FollowUpsRefused(describe(error))
            return await self.settle(performance, self.decide(performance, performance.outcome))
        if settled == "late":
            log.warning("attempt.late", would_be=settlement.becomes)
            return settlement
        if settlement.becomes in AT_REST and settlement.delay is None:  # else it is looked up
            self.announcer.announce([attempt.job_id])
        if settlement.conversation is not None:
            await self.conversations.hand_over(settlement, settlement.conversation)
        log_settled(settlement, verdict)
        if isinstance(outcome, Failure) and outcome.advice == "hold" and verdict.delay is not None:
            with suppress(asyncio.CancelledError):  # it is settled, and that is what counts
                await self.holds.hold(performance.dependency, verdict.delay, why=outcome.error["message"])
        if settlement.rings and settlement.delay is not None:
            self.timer.ring_in(settlement.delay, performance.ring())
        return settlement

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


def cut_off_failure(reason: str, *, effect: Effect) -> Failure:
    """Say what an attempt that was cut off means; one that its worker could not go on with does not count."""
    error = {"type": "CutOff", "message": f"the attempt was cut off: {reason}", "traceback": ""}
    return Failure(effect, "return" if reason in ("stopping", LEASE_OVER) else "retry", None, error)


def _reason() -> str | None:
    cut = cut_off.get(None)
    return None if cut is None else cut.reason


def _name_task(name: str) -> None:
    """Have the watchdog name the action that keeps the loop."""
    task = asyncio.current_task()
    if task is not None:
        task.set_name(name)


def _flat(rings: Iterable[list[Settlement]]) -> list[Settlement]:
    return [settlement for ring in rings for settlement in ring]

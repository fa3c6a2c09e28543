"""Looking up what became of jobs in doubt, by their actions' own verify hooks.

Whatever a hook does (it raises, hangs, answers nonsense) the job stays in doubt and is looked at again later, each time
later than before; after the last look it is left to a person.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from producer.announce import Announcer
from producer.ledger.states import CLOSED, State
from producer.trace import child_of
from tasks import ActionSpec, CannotTell, DidNotHappen, Happened
from tasks._outcomes import MESSAGE_LIMIT, describe, told
from tasks._verify import Answer, VerifyHook
from worker.doubt import Doubt, Ruling, rule
from worker.doubt_statements import WantedLook
from worker.log import bound, log
from worker.loop import all_of
from worker.perform import Performer
from worker.performance import context_of, ring_of
from worker.timer import RingTimer
from worker.writer import Writer


@dataclass(frozen=True, slots=True)
class Verifier:
    """Looks at jobs in doubt on a worker process's loop."""

    writer: Writer
    performer: Performer
    timer: RingTimer
    announcer: Announcer
    crash_cap: int

    async def verify(self, spec: ActionSpec, hook: VerifyHook, job_ids: Sequence[UUID]) -> list[Ruling]:
        """Look at those of the jobs that are in doubt and due for it, all at the same time.

        A crash in here has spent a look, and nothing else.

        Returns:
            What was ruled; none for a job that stands otherwise, or was moved by somebody else meanwhile.

        Raises:
            OperationalError: If the ledger stayed away.
            Closed: If the worker is stopping.
        """
        seconds = spec.policy.timeout + hook.every
        async with self.performer.room(hook).take(len(job_ids)):
            wanted = [WantedLook(spec.name, spec.version, job_id, seconds) for job_id in job_ids]
            doubts = await self.writer.take_up(wanted)
            rulings: list[Ruling | None] = await all_of(self._verify(spec, hook, doubt, seconds) for doubt in doubts)
        return [ruling for ruling in rulings if ruling is not None]

    async def _verify(self, spec: ActionSpec, hook: VerifyHook, doubt: Doubt, seconds: float) -> Ruling | None:
        until = time.monotonic() + seconds
        with bound(doubt.attempt, traceparent := child_of(doubt.attempt.traceparent)):
            answer, error = await self._look(spec, hook, doubt, traceparent)
            ruling = rule(spec, hook, doubt, answer, crash_cap=self.crash_cap, error=error)
            ruled = await self._write(spec, hook, doubt, ruling, lambda: until - time.monotonic())
            if ruled is None:
                log.info("job.moved_meanwhile", found=ruling.found)
                return None
            _log(ruled)
        if ruled.becomes in CLOSED or ruled.delay is None:
            self.announcer.announce([ruled.job_id])
        if ruled.rings and ruled.delay is not None:
            self.timer.ring_in(ruled.delay, ring_of(doubt.attempt, spec))
        return ruled

    async def _look(
        self, spec: ActionSpec, hook: VerifyHook, doubt: Doubt, traceparent: str
    ) -> tuple[Answer, dict[str, Any] | None]:
        """Ask the hook; return what it says, or that it cannot tell and why."""
        context = context_of(doubt.attempt, traceparent, deadline=time.monotonic() + spec.policy.timeout)
        try:
            arguments = hook.arguments(spec.arguments(doubt.attempt.params, context), context)
            answer = await self.performer.perform(hook, arguments, seconds=spec.policy.timeout)
            return _checked(spec, answer, asked=len(context.follow_ups))
        except BaseException as error:  # noqa: BLE001  it is somebody's code; a cancellation is the worker's stop
            return CannotTell(), describe(error)

    async def _write(
        self, spec: ActionSpec, hook: VerifyHook, doubt: Doubt, ruling: Ruling, seconds_left: Callable[[], float]
    ) -> Ruling | None:
        try:
            return ruling if await self.writer.rule(ruling, seconds_left=seconds_left) == "ruled" else None
        except DBAPIError as error:
            if isinstance(error, (OperationalError, InterfaceError)) or ruling.becomes is not State.SUCCEEDED:
                raise
            # A result that was valid and that Postgres will not have.
            why = describe(error.orig or error)
            unknown = rule(spec, hook, doubt, CannotTell(), crash_cap=self.crash_cap, error=why)
            return await self._write(spec, hook, doubt, unknown, seconds_left)


def _checked(spec: ActionSpec, answer: Any, *, asked: int) -> tuple[Answer, dict[str, Any] | None]:
    """Return what a hook answered, a result as plain JSON.

    Raises:
        InvalidRequest: If the result is not of the action's type.
    """
    if asked:
        return CannotTell(), _invalid(spec, "asked for follow-ups; a look only looks")
    match answer:
        case Happened(result):
            return Happened(spec.plain_result(result)), None
        case DidNotHappen():
            return answer, None
        case CannotTell(why):
            return answer, {"type": "CannotTell", "message": told(str(why), MESSAGE_LIMIT), "traceback": ""}
    if inspect.isawaitable(answer):
        return CannotTell(), _invalid(spec, "returned something to await; declare it with async def")
    kind = type(answer).__name__
    return CannotTell(), _invalid(spec, f"returned {kind}; it must return Happened(…), DidNotHappen() or CannotTell()")


def _invalid(spec: ActionSpec, problem: str) -> dict[str, Any]:
    return {"type": "InvalidAnswer", "message": f"{spec.name}, verify: {problem}", "traceback": ""}


def _log(ruling: Ruling) -> None:
    error = ruling.error or {}
    write = log.info if not error else log.warning
    write(
        "job.verified",
        found=ruling.found,
        state=ruling.becomes,
        why=ruling.why,
        delay_seconds=ruling.delay,
        error_type=error.get("type"),
        error=error.get("message"),
    )
    if ruling.becomes is State.IN_DOUBT and ruling.delay is None:
        log.error("job.unverified", found=ruling.found, hint="surefoot resolve")

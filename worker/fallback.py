"""Having an action's fallback stand in for its result. A job that ends so is ``degraded``, never a success.

`Fallbacks.degrade` is the one way to that state, for every step of the runner: ask `Fallbacks.stands_in` first. It
decides nothing: whoever calls it names the rule by which there will be no result.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from producer.errors import InvalidRequest
from producer.ledger.states import State
from tasks import Context
from tasks._fallback import Cause, Fallback
from tasks._outcomes import MESSAGE_LIMIT, TRACEBACK_LIMIT, describe, told
from worker.cut_offs import reason_of_cut_off
from worker.perform import Performer
from worker.performance import Performance
from worker.retry import Verdict

FAILED = "the fallback failed"


@dataclass(frozen=True, slots=True)
class Fallbacks:
    """Makes fallbacks' results on a worker process's loop."""

    performer: Performer

    def stands_in(self, performance: Performance) -> bool:
        """Whether the job may end with its action's fallback: there is one, and certainly no effect by now.

        A job that is to bring the true result in place of a fallback has no use for another.
        """
        attempt = performance.attempt
        return performance.spec.fallback is not None and not attempt.maybe_happened and attempt.supersedes is None

    async def degrade(self, performance: Performance, *, rule: str, error: Mapping[str, Any] | None = None) -> Verdict:
        """Have the action's fallback stand in for its result, before the intent or after an attempt without effect.

        It is called within its own deadline, after the attempt's, with the attempt's typed arguments; so the check has
        to have passed. Nothing that it asks for or says is accepted with the outcome. A crash in here leaves the job to
        the rescue as any other: the fallback is no effect.

        Args:
            performance: Of a job that `stands_in` holds for.
            rule: By which there is no result, such as ``out of retries``; the event's `why`, and the `Cause`.
            error: What went wrong last, as the ledger records it; None where nothing was tried.

        Returns:
            ``degraded`` with the fallback's result as plain JSON of the action's type; ``dead`` with both reasons where
            it raised, hung or made something else; or ``waiting``, where the attempt was cut off meanwhile.
        """
        fallback = performance.spec.fallback
        assert fallback is not None  # noqa: S101  for the type checker; the caller has asked
        try:
            made = await self._made(performance, fallback, Cause(rule, _brief(error)))
            result = performance.spec.plain_result(made)
        except BaseException as failure:  # noqa: BLE001  it is somebody's code, and the job must not vanish with it
            if isinstance(failure, asyncio.CancelledError) and reason_of_cut_off() not in (None, "time limit"):
                unspent = 0 if performance.intended is None else 1
                why, waits_for = "returned", "worker"
                return Verdict(
                    state=State.WAITING, why=why, waiting_for=waits_for, delay=0.0, unspent=unspent, error=error
                )
            return failed(rule, fallback.place, error, describe(failure))
        return Verdict(state=State.DEGRADED, why=rule, result=result, error=error, fallback=fallback.place)

    async def _made(self, performance: Performance, fallback: Fallback, cause: Cause) -> Any:
        if fallback.hook is None:
            return fallback.value
        async with self.performer.room_beside(fallback.hook, has_thread=not performance.spec.is_async):
            context = replace(
                performance.context, deadline=time.monotonic() + fallback.seconds, follow_ups=[], conversation=None
            )
            own = {} if fallback.cause_name is None else {fallback.cause_name: cause}
            arguments = fallback.hook.arguments(performance.arguments, context, **own)
            made = await self.performer.perform(fallback.hook, arguments, seconds=fallback.seconds)
        _refuse_follow_ups(context)
        return made


def failed(rule: str, place: str | None, error: Mapping[str, Any] | None, second: Mapping[str, Any]) -> Verdict:
    """Return the end of a job whose fallback could not stand in, with both reasons."""
    first = f"{rule}: {error['type']}: {error['message']}" if error else rule
    both = {
        "type": "FallbackFailed",
        "message": told(f"{first}; and its fallback: {second['type']}: {second['message']}", MESSAGE_LIMIT),
        "traceback": told(f"{(error or {}).get('traceback', '')}\n{second['traceback']}", TRACEBACK_LIMIT),
    }
    return Verdict(state=State.DEAD, why=FAILED, rule=rule, error=both, fallback=place)


def _refuse_follow_ups(context: Context) -> None:
    if context.follow_ups:
        raise InvalidRequest("fallback", "asked for follow-ups; they belong to a result, and it makes none")


def _brief(error: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if error is None else {name: error[name] for name in ("type", "message")}

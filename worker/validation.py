"""Holding what an action returned to what it declared: its type, its own checks, and what the world says of it.

Whatever is refused here comes after the effect, so the effect is never done again for its sake: what follows is decided
by the effect class (`worker.retry`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from producer.errors import SurefootError
from tasks import CannotTell, DidNotHappen, Happened
from tasks._checks import CHECK_SECONDS, RESULT
from tasks._hook import Hook
from tasks._outcomes import Failure, InvalidResult, Outcome, Success, describe, invalid
from tasks._verify import VerifyHook
from worker.cut_offs import cut_off_failure, reason_of_cut_off
from worker.perform import Performer, to_the_end
from worker.performance import Performance


class CheckFailed(SurefootError):
    """The result is of the declared type, and one of the action's own checks refuses it."""


class Unconfirmed(SurefootError):
    """The action returned a result, and its look-up does not find that it happened."""


@dataclass(frozen=True, slots=True)
class Validation:
    """Validates results on a worker process's loop."""

    performer: Performer

    async def outcome(self, performance: Performance, returned: Any) -> Outcome:
        """Return what an attempt brought whose action returned.

        Where its worker is told to stop, checks go on to their end, which is near; a look-up does not.
        """
        try:
            success = Success(performance.spec.plain_result(returned))
        except BaseException as error:  # noqa: BLE001  as in the check; nothing is awaited, so it is no cancellation
            return invalid(error, returned)
        if performance.spec.checks:
            refused = await to_the_end(self._check(performance, returned))
            if refused is not None:
                return refused
        hook = performance.spec.hook_for(performance.effect) if performance.spec.confirm else None
        return success if hook is None else await self._confirmed(performance, hook) or success

    async def _check(self, performance: Performance, returned: Any) -> InvalidResult | None:
        for check in performance.spec.checks:
            try:
                _passed(check, await self._ask(performance, check, returned))
            except BaseException as error:  # noqa: BLE001  a check that goes wrong has not passed
                return invalid(error, returned)
        return None

    async def _ask(self, performance: Performance, check: Hook, returned: Any) -> Any:
        # Typed anew for each: what one of them does to it is not the next one's to see, nor the ledger's.
        typed = performance.spec.result.validate_python(returned)
        context = replace(performance.context, follow_ups=[], conversation=None)
        arguments = check.arguments(performance.arguments, context, **{RESULT: typed})
        return await self._call(performance, check, arguments, seconds=CHECK_SECONDS)

    async def _confirmed(self, performance: Performance, hook: VerifyHook) -> Failure | None:
        """Ask the action's look-up; return None where it happened, and else that nobody knows."""
        spec = performance.spec
        context = replace(performance.context, follow_ups=[], conversation=None)
        arguments = hook.arguments(performance.arguments, context)
        try:
            answer = await self._call(performance, hook, arguments, seconds=spec.policy.timeout)
        except BaseException as error:  # noqa: BLE001  it is somebody's code
            if isinstance(error, asyncio.CancelledError) and (reason := reason_of_cut_off()) is not None:
                return cut_off_failure(reason, effect="unknown")
            return _unconfirmed(f"its look-up raised {describe(error)['type']}: {describe(error)['message']}")
        match answer:
            case Happened():
                return None
            case DidNotHappen():
                return _unconfirmed("its look-up does not find it")
            case CannotTell(why):
                return _unconfirmed(f"its look-up cannot tell: {why}")
        return _unconfirmed(f"{spec.name}, verify: returned {type(answer).__name__}")

    async def _call(self, performance: Performance, hook: Hook, arguments: dict[str, Any], *, seconds: float) -> Any:
        async with self.performer.room_beside(hook, has_thread=not performance.spec.is_async):
            return await self.performer.perform(hook, arguments, seconds=seconds)


def _passed(check: Hook, said: Any) -> None:
    """Take a check's word: None or True passes, text says what is wrong.

    Raises:
        CheckFailed: If it did not pass.
    """
    if said is None or said is True:
        return
    wrong = said if isinstance(said, str) else f"it returned {said!r}; None passes, text says what is wrong"
    raise CheckFailed(f"{check.place}: {wrong}")


def _unconfirmed(why: str) -> Failure:
    return Failure(effect="unknown", advice="retry", after=None, error=describe(Unconfirmed(why)))

"""The breakers that a worker process's attempts go through, and what the end of an attempt says of its dependency."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pybreaker

from producer.broker import is_redis
from tasks import ActionSpec, Dependency
from tasks._dependency import dependency_named
from tasks._outcomes import Failure, Says
from tasks._retry_after import LONGEST_SECONDS
from worker.breaker import FleetBreaker
from worker.breaker_answers import BreakerOpen
from worker.breaker_word import Word
from worker.cut_offs import CUT_OFF
from worker.fleet import Fleet
from worker.performance import Performance

# A process that meets more dependencies forgets the one that it met first; Redis does not.
MOST_KNOWN = 10_000
# A call that was cut off before its action's time was over tells of a hang if it had run for this part of that.
HANGS = 0.5
MOST_CAUSES = 10


def doubts(redis_url: str, actions: Mapping[str, ActionSpec]) -> list[str]:
    """Return what will surprise about these actions' breakers where the broker is no Redis, in a sentence each."""
    if is_redis(redis_url):
        return []
    named = {spec.dependency for spec in actions.values() if isinstance(spec.dependency, str)}
    return [
        f"dependency {name} has a breaker that takes a Redis as the broker: nothing that calls it will ever run"
        for name in sorted(named)
        if dependency_named(name).without_redis == "reject"
    ]


class Breakers:
    """Every breaker that this process has met, on its loop. Connects at the first use."""

    def __init__(
        self,
        redis_url: str,
        fleet: Fleet,
        *,
        worker: str,
        jitter: Callable[[], float] = random.random,
        listeners: Sequence[pybreaker.CircuitBreakerListener] = (),
    ) -> None:
        """Connect nothing yet.

        Args:
            redis_url: The broker's. Where that is no Redis, each process breaks by itself, for good.
            fleet: The line to it; told of by whoever made it where Redis is away.
            worker: Named in the history.
            jitter: Draws from [0, 1).
            listeners: pybreaker's, for all breakers; see `FleetBreaker`.
        """
        self._fleet, self._worker, self._jitter, self._listeners = fleet, worker, jitter, listeners
        self._known: dict[str, FleetBreaker] = {}
        self._word = Word(redis_url, heard=self._heard, missed=self._missed)

    def breaker(self, name: str, dependency: Dependency) -> FleetBreaker:
        """Return the breaker of this name; its settings are those that it was first met with."""
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= MOST_KNOWN:
                del self._known[next(iter(self._known))]
            known = self._known[name] = FleetBreaker(
                name,
                dependency,
                self._fleet,
                worker=self._worker,
                listens=lambda: self._word.listening,
                jitter=self._jitter,
                listeners=self._listeners,
            )
        return known

    async def admit(self, performance: Performance, *, parks: bool) -> BreakerOpen | None:
        """Let an attempt through to its dependency, or say why not. One that is let through is to be ended by `end`.

        Args:
            performance: The attempt's.
            parks: Whether its job waits for it where it is refused.
        """
        self._word.listen()
        attempt = performance.attempt
        breaker = self.breaker(performance.dependency, performance.declared)
        try:
            performance.ticket = await breaker.calls.admit(
                lease_seconds=performance.context.seconds_left, parks=parks, job_id=attempt.job_id
            )
        except BreakerOpen as refusal:
            return refusal
        return None

    async def check(self, performance: Performance, *, parks: bool) -> BreakerOpen | None:
        """Say why an attempt would not be let through, if so, before it takes anything else that others wait for."""
        self._word.listen()
        breaker = self.breaker(performance.dependency, performance.declared)
        try:
            await breaker.calls.check(parks=parks, job_id=performance.attempt.job_id)
        except BreakerOpen as refusal:
            return refusal
        return None

    def report(self, performance: Performance, returned: Any) -> None:
        """Say how the call of an attempt ended: what it returned, or its `Failure`. Returns at once."""
        ticket = performance.ticket
        if ticket is None:
            return
        slow_after = ticket.calls.dependency.slow_call_seconds
        took = 0.0 if performance.intended is None else time.monotonic() - performance.intended
        says = self._says(performance, returned, took) if isinstance(returned, Failure) else None
        after = returned.after if says == "ill" and isinstance(returned, Failure) else None
        ticket.calls.record(
            ticket,
            failed={None: False, "ill": True}.get(says),
            answered=says == "answered",
            slow=says != "nothing" and slow_after is not None and took > slow_after,
            asked_seconds=min(after, LONGEST_SECONDS) if after is not None and after > 0 else 0.0,  # NaN is not, either
        )

    def end(self, performance: Performance) -> None:
        """Give back what an attempt was let through with, where it came to no call: it says nothing."""
        if performance.ticket is not None:
            performance.ticket.calls.record(performance.ticket, failed=None)

    async def close(self) -> None:
        """Hear nothing more."""
        await self._word.close()

    def _says(self, performance: Performance, failure: Failure, took: float) -> Says:
        """Say what a call that brought no result tells of whom it called."""
        if failure.says != "ill":
            return failure.says
        if performance.raised is not None and self.breaker(performance.dependency, performance.declared).excludes(
            performance.raised
        ):
            return "answered"  # as pybreaker has it: whoever tries and ends so may be followed by everybody
        if _is_cut_short(performance, failure):
            slow_after = performance.declared.slow_call_seconds
            long = HANGS * performance.spec.policy.timeout if slow_after is None else slow_after
            return "ill" if took > long else "nothing"
        return "ill"

    def _heard(self, name: str) -> None:
        if (known := self._known.get(name)) is not None:
            known.calls.stirred()

    def _missed(self) -> None:
        for known in self._known.values():
            known.calls.stirred()


def _is_cut_short(performance: Performance, failure: Failure) -> bool:
    """Whether the call had less time than its action has: by its job's deadline, a person, or a limit of Celery's."""
    if failure.error["type"] == CUT_OFF:
        return True
    return performance.hurried and _is_over_time(performance.raised)


def _is_over_time(error: BaseException | None) -> bool:
    """Whether that it took too long is what ended it, be it a client that had been told when to give up."""
    seen = 0
    while error is not None and seen < MOST_CAUSES:
        if any("timeout" in kind.__name__.lower() for kind in type(error).__mro__):
            return True
        error, seen = error.__cause__, seen + 1
    return False

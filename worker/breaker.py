"""One breaker of the whole fleet, with pybreaker's face: its states, its listeners, its error.

Underneath nothing is left of it. pybreaker keeps a lock while it calls, lets every process try at once, forgets all
failures at any success, and takes a Redis that is gone for a closed breaker. Here each decision is one script in Redis
(producer/breaker_scripts.py); what it takes in a process is worker/breaker_calls.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NoReturn

import pybreaker

from tasks import Dependency
from tasks._retry_after import LONGEST_SECONDS
from worker.breaker_answers import Move
from worker.breaker_calls import Calls, Ticket
from worker.fleet import Fleet
from worker.log import log
from worker.meter import meter


class FleetStorage(pybreaker.CircuitBreakerStorage):
    """What pybreaker reads of a breaker: what Redis last said. Nothing is ever written by it."""

    def __init__(self, calls: Calls) -> None:
        """Read from what a process knows."""
        super().__init__("surefoot")
        self._calls = calls

    @property  # type: ignore[misc]  # pybreaker writes its state here; nobody writes ours
    def state(self) -> str:
        """As it was last heard of."""
        return self._calls.known.answer.state

    @property
    def counter(self) -> int:
        """Failures in a row, in the whole fleet."""
        return self._calls.known.answer.failed

    @property
    def success_counter(self) -> int:
        """Tries that succeeded since it is half-open."""
        return self._calls.known.answer.passed

    @property  # type: ignore[misc]  # as above
    def opened_at(self) -> datetime | None:
        """Unknown: only Redis's clock counts."""
        return None


class FleetBreaker(pybreaker.CircuitBreaker):
    """The breaker of one dependency, as one process sees it, on its loop.

    Attributes:
        calls: What goes through it.
    """

    def __init__(
        self,
        name: str,
        dependency: Dependency,
        fleet: Fleet,
        *,
        worker: str,
        listens: Callable[[], bool],
        jitter: Callable[[], float],
        listeners: Sequence[pybreaker.CircuitBreakerListener] = (),
    ) -> None:
        """Ask nothing yet; the arguments are those of `Calls`.

        `listeners` are pybreaker's: told of a transition in one process of the fleet, the one whose call made it, and
        of calls by `call_async` in this one.
        """
        self.calls = Calls(
            name, dependency, fleet, worker=worker, listens=listens, jitter=jitter, on_moves=self._tell_of
        )
        super().__init__(
            fail_max=dependency.fail_max or 0,
            reset_timeout=dependency.recovery_seconds,
            success_threshold=dependency.success_threshold,
            exclude=list(dependency.exclude),
            listeners=list(listeners),
            state_storage=FleetStorage(self.calls),
            name=name,
        )

    @property  # type: ignore[misc]  # as above
    def state(self) -> Any:
        """Pybreaker's object for the state, as it was last heard of; reading it changes nothing."""
        return self._create_new_state(self.current_state)

    def is_system_error(self, exception: BaseException) -> bool:
        """Whether it says something against the dependency; neither what is excluded nor what cuts a call off does."""
        return isinstance(exception, Exception) and not self.excludes(exception)

    def excludes(self, exception: BaseException) -> bool:
        """Whether it is excluded."""
        if not isinstance(exception, Exception):
            return False
        return any(_excludes(exclusion, exception) for exclusion in self.excluded_exceptions)

    async def call_async(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Await `func` if the breaker lets it; as many at a time as come.

        Raises:
            BreakerOpen: If it does not.
            BaseException: What `func` raises.
        """
        ticket = await self.calls.admit(lease_seconds=self.reset_timeout)
        self._tell_listeners("before_call", func, *args, **kwargs)
        began = time.monotonic()
        try:
            returned = await func(*args, **kwargs)
        except BaseException as error:
            self._fail(ticket, error, is_slow=self._is_slow(began))
            raise
        self.calls.record(ticket, failed=False, slow=self._is_slow(began))
        self._tell_listeners("success")
        return returned

    def _fail(self, ticket: Ticket, error: BaseException, *, is_slow: bool) -> None:
        """Record a call that raised. What was cut off tells of a hang if it had been slow already, and else nothing."""
        failed = self.is_system_error(error) or (isinstance(error, asyncio.CancelledError) and is_slow)
        answered = self.excludes(error)
        after = getattr(error, "after", None)  # of any library's error, so it may be anything
        asked_seconds = min(after, LONGEST_SECONDS) if isinstance(after, int | float) and after > 0 else 0.0
        self.calls.record(
            ticket,
            failed=True if failed else None,
            answered=answered,
            slow=is_slow and (failed or answered),
            asked_seconds=asked_seconds,
        )
        if failed:
            self._tell_listeners("failure", error)

    def _is_slow(self, began: float) -> bool:
        slow_after = self.calls.dependency.slow_call_seconds
        return slow_after is not None and time.monotonic() - began > slow_after

    def call(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: it would keep the loop. A sync action is called through its worker's breaker already."""
        raise NotImplementedError(f"await the breaker of {self.name} by call_async()")

    def open(self) -> NoReturn:
        """Refuse: one process has no say in it; an operator does, by ``surefoot breaker NAME open``."""
        raise self._no_say("open")

    def close(self) -> NoReturn:
        """Refuse, as `open`."""
        raise self._no_say("close")

    def half_open(self) -> NoReturn:
        """Refuse, as `open`: an operator's ``auto`` has a call try."""
        raise self._no_say("auto")

    def _no_say(self, word: str) -> NotImplementedError:
        return NotImplementedError(f"it is the whole fleet's: surefoot breaker {self.name!r} {word} --reason …")

    def _tell_of(self, moves: Sequence[Move]) -> None:
        for move in moves:
            meter().breaker_moved(move.becomes)
            log.warning(
                "breaker.moved",
                breaker=self.name,
                was=move.was,
                becomes=move.becomes,
                reason=move.reason,
                shared=move.shared,
            )
            was, becomes = self._create_new_state(move.was), self._create_new_state(move.becomes)
            self._tell_listeners("state_change", was, becomes)

    def _tell_listeners(self, what: str, *facts: Any, **more: Any) -> None:
        for listener in self.listeners:
            try:
                getattr(listener, what)(self, *facts, **more)
            except Exception as error:  # noqa: BLE001  a listener may raise anything; the call is not its business
                log.warning("breaker.listener_failed", breaker=self.name, error=str(error))


def _excludes(exclusion: Any, exception: Exception) -> bool:
    # pybreaker takes a class that has a metaclass for a function.
    if isinstance(exclusion, type):
        return isinstance(exception, exclusion)
    try:
        return bool(exclusion(exception))
    except Exception as error:  # noqa: BLE001  an author's function; what it cannot tell is not excluded
        log.warning("breaker.exclusion_failed", error_type=type(error).__name__, error=str(error))
        return False

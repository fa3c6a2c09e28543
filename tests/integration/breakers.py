"""Breakers for the tests: one in Redis on a clock that tests move, and processes that share one on Redis's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pybreaker
import redis

from producer.breaker_scripts import ADMIT, FORCE, LOOK, RECORD
from producer.breaker_words import HOLDS, MOVES, Transition, as_text, held_key_of, keys_of, line_key_of, transition_of
from tasks import Dependency
from tests import loops
from worker.breaker import FleetBreaker
from worker.breaker_answers import ADMITTED, Answer, BreakerOpen, Seen, answer_of
from worker.breaker_calls import Calls
from worker.breaker_rules import bucket_ms
from worker.breaker_word import Word
from worker.fleet import Fleet

NAME = "llm"
# The epoch of a call that began since the breaker last moved, whenever that was.
THIS_TIME = 2 * 1_764_000_000_000


@dataclass(slots=True)
class InRedis:
    """What `worker.breaker_rules.Rules` is, asked of the scripts; times are the test's."""

    client: redis.Redis
    dependency: Dependency
    name: str = NAME
    pace: float | None = None  # how far apart in milliseconds they look by themselves; None is as they are let go

    def admit(self, now: int, token: str, lease_ms: int, *, parks: bool, job: str = "") -> Answer:
        return self._run(ADMIT, now, token, lease_ms, int(parks), self._gap, self.pace or self._gap, job=job)

    def record(self, now: int, seen: Seen, *, jitter: float, job: str = "") -> Answer:
        declared = self.dependency
        return self._run(
            RECORD,
            *(now, seen.token, seen.epoch, seen.bad, seen.slow, seen.asked_ms, jitter),
            *(declared.fail_max or 0, declared.min_calls, declared.failure_rate or 0),
            *(declared.slow_rate if declared.slow_call_seconds is not None else 0, bucket_ms(declared)),
            *(declared.recovery_seconds * 1000, declared.longest_recovery * 1000, declared.success_threshold),
            *(self._gap, *(number for pair in seen.ok for number in pair)),
            job=job,
        )

    def force(self, now: int, want: str, *, for_ms: int = 0) -> Answer:
        keys = [held_key_of(self.name), HOLDS, line_key_of(self.name)]
        return answer_of(self._eval(FORCE, now, want, for_ms, "because", more_keys=keys))

    def look(self, now: int) -> dict[str, str]:
        _, _, flat, _, _ = self._eval(LOOK, now, more_keys=[held_key_of(self.name)])
        return as_text(flat)

    def moves(self) -> list[Transition]:
        return moves_in(self.client)

    def _run(self, script: str, now: int, *arguments: Any, job: str = "") -> Answer:
        return answer_of(self._eval(script, now, *arguments, job=job))

    def _eval(self, script: str, now: int, *arguments: Any, job: str = "", more_keys: Sequence[str] = ()) -> Any:
        keys = [*keys_of(self.name), *more_keys]
        return self.client.eval(script, len(keys), *keys, now, self.name, "tests", job, *arguments)

    @property
    def _gap(self) -> float:
        return 1000 / self.dependency.release_per_second


def moves_in(client: redis.Redis) -> list[Transition]:
    """Every transition that Redis has noted down, in order."""
    entries: Any = client.xrange(MOVES)
    return [transition_of({k.decode(): v.decode() for k, v in fields.items()}) for _, fields in entries]


class Listener(pybreaker.CircuitBreakerListener):
    """Notes down what it is told."""

    def __init__(self) -> None:
        self.moves: list[tuple[str, str]] = []
        self.calls: list[str] = []

    def state_change(self, _cb: Any, old_state: Any, new_state: Any) -> None:
        self.moves.append((old_state.name, new_state.name))

    def before_call(self, cb: Any, func: Any, *_: Any, **__: Any) -> None:  # noqa: ARG002  pybreaker's names
        self.calls.append("before")

    def success(self, _cb: Any) -> None:
        self.calls.append("success")

    def failure(self, _cb: Any, exc: BaseException) -> None:
        self.calls.append(type(exc).__name__)


@dataclass(slots=True)
class Process:
    """One worker process's view of one breaker."""

    breaker: FleetBreaker
    fleet: Fleet
    word: Word
    listener: Listener = field(default_factory=Listener)
    away: list[str] = field(default_factory=list)

    @property
    def calls(self) -> Calls:
        return self.breaker.calls

    async def succeed(self) -> None:
        self.calls.record(await self.calls.admit(lease_seconds=1), failed=False)

    async def fail(self, times: int = 1, **more: Any) -> None:
        for _ in range(times):
            self.calls.record(await self.calls.admit(lease_seconds=1), failed=True, **more)
            await self.told()

    async def told(self) -> None:
        """Wait until Redis has been told everything."""

        async def is_told() -> bool:
            return not self.calls.is_telling

        await loops.until(is_told)

    async def knows_it_is(self, state: str) -> None:
        """Wait until a call is answered so."""

        async def known() -> bool:
            with suppress(BreakerOpen):
                self.calls.record(await self.calls.admit(lease_seconds=1), failed=None)
            return bool(self.breaker.current_state == state)

        await loops.until(known)


@asynccontextmanager
async def processes(
    url: str, count: int, *, listens: bool = True, jitter: float = 0.0, **declared: Any
) -> AsyncIterator[Sequence[Process]]:
    """Let `count` processes share a breaker, each listening before this begins; always the same `jitter`."""
    dependency = Dependency(**dict[str, Any](name=NAME, recovery_seconds=0.2) | declared)
    made = [_process(url, number, dependency, jitter) for number in range(count)]
    try:
        if listens:
            for each in made:
                each.word.listen()

            async def all_listen() -> bool:
                return all(each.word.listening for each in made)

            await loops.until(all_listen)
        yield made
    finally:
        for each in made:
            await each.word.close()
            await each.fleet.close()


def _process(url: str, number: int, dependency: Dependency, jitter: float) -> Process:
    away: list[str] = []
    listener = Listener()
    fleet = Fleet(url, on_away=away.append)
    known: list[FleetBreaker] = []

    def stirred(_: str = NAME) -> None:
        known[0].calls.stirred()

    word = Word(url, heard=stirred, missed=stirred)
    breaker = FleetBreaker(
        dependency.name,
        dependency,
        fleet,
        worker=f"w{number}",
        listens=lambda: word.listening,
        jitter=lambda: jitter,
        listeners=[listener],
    )
    known.append(breaker)
    return Process(breaker, fleet, word, listener, away)


def lets_through(answer: Answer) -> bool:
    """Whether a call may go."""
    return answer.decision >= ADMITTED

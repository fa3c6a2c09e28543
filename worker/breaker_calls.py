"""The calls of one process through one breaker: let through or refused, and told of, with as few questions as can be.

While a breaker is closed and nothing fails, nobody asks Redis anything: whoever moves it, or sees it fail first, has
Redis tell all. Successes are counted here, and told only where there are failures to hold them against.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import UUID

from producer.breaker_scripts import ADMIT, BUCKETS, RECORD
from producer.breaker_words import CLOSED, OPEN, keys_of
from tasks import Dependency
from worker.breaker_answers import ADMITTED, PROBES, REFUSED, Answer, BreakerOpen, Move, Seen, answer_of
from worker.breaker_rules import Rules, bucket_ms
from worker.fleet import AWAY_SECONDS, TIMEOUT_SECONDS, Away, Fleet, Script

ADMIT_SCRIPT, RECORD_SCRIPT = Script(ADMIT), Script(RECORD)
# While moves are not heard of, what is known of a closed breaker is trusted for so long.
STALE_SECONDS = 0.5
# While a breaker sees failures, successes are told so often; else not at all.
FLUSH_SECONDS = 0.25
# A probe's turn lasts for as long as its process says so, again and again; and ends for good when its call should long
# be over.
PROLONG_SECONDS, SPARE_SECONDS = 1.5, 5.0
# For so long nothing need be heard of it. A Redis that answers too late once is asked nothing for `AWAY_SECONDS`: the
# last word may be from a `PROLONG_SECONDS` before, and the next one comes a `PROLONG_SECONDS` after. Where the process
# is dead, others wait for as long.
TURN_MS = round(1_000 * (AWAY_SECONDS + 2 * PROLONG_SECONDS + 4 * TIMEOUT_SECONDS))
# While it is not closed, one of so many that it lets go in the same time looks again; and one in this part of its
# recovery time, so that a try is hardly late.
LOOKS_APART, LOOKS_WITHIN = 10, 1 / 20
# It has this long to say that it has heard that it is its turn; a loop that has much to do may need some of that.
HEARD_MS = 2_000
UNKNOWN = "unknown"


@dataclass(slots=True)
class Ticket:
    """One call that was let through; told of once, by `Calls.record`.

    Attributes:
        epoch: Since which transition the breaker stood as it did when the call was let through.
        token: Of the call that tries; empty for others.
        local: Whether Redis was away, and this process's own rules let it through.
        job_id: Whose call it is, for the history.
        told: Whether its end was told.
    """

    calls: Calls
    epoch: int = 0
    token: str = ""
    local: bool = False
    job_id: UUID | None = None
    told: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What Redis last said, at `at` on the monotonic clock, after so many words were heard."""

    answer: Answer = field(default_factory=lambda: Answer(decision=ADMITTED, state=CLOSED, epoch=0))
    at: float = float("-inf")
    words: int = -1


class Calls:
    """What goes through one breaker in this process, on its loop.

    Attributes:
        known: What Redis last said.
        asked: Questions to Redis, so far.
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
        on_moves: Callable[[Sequence[Move]], None],
    ) -> None:
        """Ask nothing yet.

        Args:
            name: The dependency's, and what else it is kept apart by.
            dependency: Its settings.
            fleet: The line to Redis.
            worker: Named in the history.
            listens: Whether `stirred` is called whenever it moves or begins to see failures.
            jitter: Draws from [0, 1).
            on_moves: Told what this process has moved.
        """
        self.name, self.dependency, self.known, self.asked = name, dependency, Known(), 0
        self._fleet, self._worker, self._listens, self._jitter = fleet, worker, listens, jitter
        self._on_moves = on_moves
        self._rules = Rules(dependency)
        self._alone = False  # whether those have been asked since Redis last answered
        self._bucket_ms = bucket_ms(dependency)
        self._succeeded: dict[int, int] = {}  # by bucket, since they were last told
        self._words = 0
        self._suspicious_until = 0.0
        self._flush: asyncio.TimerHandle | None = None
        self._telling: set[asyncio.Task[None]] = set()
        self._turns: dict[str, asyncio.Task[None]] = {}  # which of them are this process's, and who prolongs them

    # ---- a call's way ------------------------------------------------------------------------------------------

    async def admit(self, *, lease_seconds: float, parks: bool = False, job_id: UUID | None = None) -> Ticket:
        """Let a call through; say how it ended by `record`.

        Args:
            lease_seconds: How long the call may last: if it is the one that tries, nobody else does for so long. If
                its process dies, another may a few seconds after that.
            parks: Whether a job waits for it where it is refused: those that wait look again one by one.
            job_id: Whose call it is.

        Raises:
            BreakerOpen: If it must not be made.
        """
        if self._knows_it_is_closed(parks=parks):
            return Ticket(self, self.known.answer.epoch, job_id=job_id)
        token, lasts = secrets.token_hex(8), lease_seconds + SPARE_SECONDS
        try:
            answer = await self._ask(token, parks=parks, job_id=job_id)
        except Away:
            return self._admit_alone(token, round(lasts * 1000), parks=parks, job_id=job_id)
        if answer.decision == REFUSED:
            raise BreakerOpen(self.name, answer.state, answer.wait_ms / 1000)
        if answer.decision == PROBES:
            keeping = self._keep_turn(token, answer.epoch, time.monotonic() + lasts, job_id)
            self._turns[token] = asyncio.get_running_loop().create_task(keeping, context=Context())
        return Ticket(self, answer.epoch, "" if answer.decision == ADMITTED else token, job_id=job_id)

    async def check(self, *, parks: bool, job_id: UUID | None = None) -> None:
        """Refuse a call that `admit` would refuse, before it takes anything else that others wait for.

        Where it does not, nothing is taken, and `admit` may refuse all the same. Nor does it without Redis.

        Args:
            parks: As `admit` has it.
            job_id: Whose call it is.

        Raises:
            BreakerOpen: If the call must not be made.
        """
        if self._knows_it_is_closed(parks=parks):
            return
        with suppress(Away):
            answer = await self._ask_once("", 0, parks=parks, job_id=job_id)
            if answer.decision == REFUSED:
                raise BreakerOpen(self.name, answer.state, answer.wait_ms / 1000)

    def record(
        self,
        ticket: Ticket,
        *,
        failed: bool | None,
        answered: bool = False,
        slow: bool = False,
        asked_seconds: float = 0.0,
    ) -> None:
        """Say how a call ended, once; a second time changes nothing. Returns at once.

        Args:
            ticket: The call's.
            failed: Whether it failed; None where it neither did nor succeeded.
            answered: Whether it was answered all the same, with a definite no, or ended as is excluded. The call that
                tries has then found out what it was to find out; of others that is no success.
            slow: Whether it took too long.
            asked_seconds: For how long the other side asked for patience.
        """
        if ticket.told:
            return
        ticket.told = True
        if (turn := self._turns.pop(ticket.token, None)) is not None:
            turn.cancel()
        if failed is None and answered and ticket.token:
            failed = False
        if failed is None and not ticket.token:
            return
        if not failed and not slow and not ticket.token and not ticket.local:
            self._succeed(ticket)
            return
        if not self.dependency.breaks and not ticket.token:
            return
        seen = Seen(
            token=ticket.token,
            epoch=ticket.epoch,
            bad=int(failed is True),
            slow=int(slow),
            asked_ms=round(asked_seconds * 1000),
            ok=[(0, 1)] if failed is False else [],
        )
        if ticket.local:
            self._record_alone(seen, ticket.job_id)
        else:
            self._soon(self._tell(seen, ticket.job_id))

    @property
    def is_telling(self) -> bool:
        """Whether something that was recorded is still on its way to Redis."""
        return bool(self._telling)

    def stirred(self) -> None:
        """Take note that the breaker has moved, or sees failures: ask anew, and tell of successes for a while."""
        self._words += 1
        self._suspicious_until = time.monotonic() + self.dependency.window_seconds
        if self._succeeded:
            self._flush_soon()

    # ---- with Redis --------------------------------------------------------------------------------------------

    def _knows_it_is_closed(self, *, parks: bool) -> bool:
        """Whether it is, without asking; raises `BreakerOpen` where it is known to be open, and nobody waits for it."""
        known, now = self.known, time.monotonic()
        if known.words != self._words or not (self._listens() or now < known.at + STALE_SECONDS):
            return False
        left = known.at + known.answer.wait_ms / 1000 - now
        if known.answer.state == OPEN and not parks and left > 0:
            raise BreakerOpen(self.name, OPEN, round(left, 3))
        return known.answer.state == CLOSED

    async def _ask(self, token: str, *, parks: bool, job_id: UUID | None) -> Answer:
        """Ask whether a call may go. The one that tries says that it has heard so, and has its turn by that.

        Raises:
            Away: If there is no answer in time. One that is on its way harms nobody: the turn that it brings is over
                as soon as that word could have come.
        """
        began = time.monotonic()
        answer = await self._ask_once(token, HEARD_MS, parks=parks, job_id=job_id)
        if answer.decision != PROBES or time.monotonic() - began < HEARD_MS / 2_000:
            return answer  # the word is there in time, and nobody need wait for that
        return await self._ask_once(token, TURN_MS, parks=parks, job_id=job_id)  # it may be another's by now

    async def _keep_turn(self, token: str, epoch: int, ends: float, job_id: UUID | None) -> None:
        """Prolong a turn until its call is told of: where its process dies, the next one tries soon."""
        while (left := ends - time.monotonic()) > 0:
            with suppress(Away):  # then the turn is soon another's, as it should be
                turn_ms = min(TURN_MS, math.ceil(left * 1000))
                answer = await self._ask_once(token, turn_ms, parks=False, job_id=job_id)
                if answer.decision == PROBES and answer.epoch != epoch:  # it was over, and this is another one
                    await self._tell(Seen(token=token), job_id)
                if answer.decision != PROBES or answer.epoch != epoch:
                    return
            await asyncio.sleep(PROLONG_SECONDS)

    async def _ask_once(self, token: str, lease_ms: int, *, parks: bool, job_id: UUID | None) -> Answer:
        words = self._words
        self.asked += 1
        arguments = ["", self.name, self._worker, _text(job_id), token, lease_ms, int(parks), self._gap, self._pace]
        asking = asyncio.ensure_future(self._fleet.run(ADMIT_SCRIPT, keys_of(self.name), arguments))
        try:
            answer = answer_of(await asyncio.shield(asking))
        except asyncio.CancelledError:
            if token:
                asking.add_done_callback(partial(self._give_back, token))
            raise
        # A job's wait has its place in the line in it: whoever is not in that may go sooner.
        self._learn(answer, words if answer.state == CLOSED or not parks else -1)
        return answer

    def _give_back(self, token: str, asked: asyncio.Future[Any]) -> None:
        """Have somebody else try, where the turn was on its way to a call that will not be made."""
        if not asked.cancelled() and asked.exception() is None:
            self._soon(self._tell(Seen(token=token)))

    async def _tell(self, seen: Seen, job_id: UUID | None = None) -> None:
        # A probe speaks for itself alone.
        declared, succeeded = self.dependency, [] if seen.token else self._take_succeeded()
        words, self.asked = self._words, self.asked + 1
        arguments = [
            *("", self.name, self._worker, _text(job_id), seen.token, seen.epoch, seen.bad, seen.slow, seen.asked_ms),
            *(self._jitter(), declared.fail_max or 0, declared.min_calls, declared.failure_rate or 0),
            *(declared.slow_rate if declared.slow_call_seconds is not None else 0, self._bucket_ms),
            *(declared.recovery_seconds * 1000, declared.longest_recovery * 1000, declared.success_threshold),
            *(self._gap, *(number for pair in (*succeeded, *seen.ok) for number in pair)),
        ]
        try:
            answer = answer_of(await self._fleet.run(RECORD_SCRIPT, keys_of(self.name), arguments))
        except Away:
            self._forget()
            self._record_alone(replace(seen, epoch=self._rules.epoch, token=""), job_id)
        else:
            if self._alone:  # what it had to find out by itself is of no use any more
                self._rules, self._alone = Rules(self.dependency), False
            # What it says of waiting is no answer to a call's question.
            self._learn(answer, words if answer.state == CLOSED else -1)

    def _forget(self) -> None:
        """Ask anew: a Redis that still speaks, and takes no writes, says closed for as long as that lasts."""
        self.known = replace(self.known, words=-1)

    def _learn(self, answer: Answer, words: int) -> None:
        if answer.epoch != self.known.answer.epoch:  # what succeeded before tells of another time
            self._succeeded.clear()
        self.known = Known(answer, time.monotonic(), words)
        self._on_moves(answer.moves)

    def _succeed(self, ticket: Ticket) -> None:
        if ticket.epoch != self.known.answer.epoch or not self.dependency.breaks:
            return
        now = time.monotonic()
        bucket = int(now * 1000) // self._bucket_ms
        self._succeeded[bucket] = self._succeeded.get(bucket, 0) + 1
        if len(self._succeeded) > BUCKETS:
            del self._succeeded[min(self._succeeded)]
        if now < self._suspicious_until:
            self._flush_soon()

    def _take_succeeded(self) -> list[tuple[int, int]]:
        bucket = int(time.monotonic() * 1000) // self._bucket_ms
        succeeded, self._succeeded = self._succeeded, {}
        return [(bucket - number, count) for number, count in sorted(succeeded.items())]

    def _flush_soon(self) -> None:
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_now, context=Context())

    def _flush_now(self) -> None:
        self._flush = None
        if self._succeeded:
            self._soon(self._tell(Seen(epoch=self.known.answer.epoch)))

    def _soon(self, telling: Coroutine[Any, Any, None]) -> None:
        # In a context of its own: nothing cuts it off, and what it logs is no attempt's.
        task = asyncio.get_running_loop().create_task(telling, context=Context())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    @property
    def _gap(self) -> float:
        return 1000 / self.dependency.release_per_second

    @property
    def _pace(self) -> float:
        """How far apart in milliseconds those that wait look again by themselves.

        Some have to come, to try; all others would be refused, and be so for nothing: once it closes, all are let go.
        """
        longest = self.dependency.recovery_seconds * 1000 * LOOKS_WITHIN
        return max(self._gap, min(self._gap * LOOKS_APART, longest))

    # ---- in this process ---------------------------------------------------------------------------------------

    def _admit_alone(self, token: str, lease_ms: int, *, parks: bool, job_id: UUID | None) -> Ticket:
        """Decide without Redis, as the dependency declares."""
        if self.dependency.without_redis == "reject":
            raise BreakerOpen(self.name, UNKNOWN, round(2 * AWAY_SECONDS * (1 + self._jitter()), 3))
        if self.dependency.without_redis == "allow":
            return Ticket(self, local=True, job_id=job_id)
        self._alone = True
        answer = self._rules.admit(_now_ms(), token, lease_ms, parks=parks, job=_text(job_id))
        self._on_moves(answer.moves)
        if answer.decision == REFUSED:
            raise BreakerOpen(self.name, answer.state, answer.wait_ms / 1000)
        return Ticket(self, answer.epoch, "" if answer.decision == ADMITTED else token, local=True, job_id=job_id)

    def _record_alone(self, seen: Seen, job_id: UUID | None) -> None:
        if self.dependency.without_redis == "local":
            self._alone = True
            self._on_moves(self._rules.record(_now_ms(), seen, jitter=self._jitter(), job=_text(job_id)).moves)


def _text(job_id: UUID | None) -> str:
    return "" if job_id is None else str(job_id)


def _now_ms() -> int:
    return int(time.monotonic() * 1000)

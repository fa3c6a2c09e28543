"""Admitting an attempt: the gates that a claimed job passes before its intent. Who is held by one spends no attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from producer.ledger.states import State
from tasks._outcomes import Success
from worker.breaker_answers import BreakerOpen
from worker.breakers import Breakers
from worker.budgets import Budgets
from worker.conversations import Conversations
from worker.fallback import Fallbacks
from worker.holds import Holds
from worker.leases import Leases
from worker.limits import Blocked, Limits
from worker.performance import Performance
from worker.policies import Policies
from worker.retry import Verdict
from worker.retry_budget import Paid, RetryBudget


@dataclass(frozen=True, slots=True)
class Gates:
    """The gates of one worker process, on its loop. `jitter` draws from [0, 1)."""

    leases: Leases
    policies: Policies
    conversations: Conversations
    holds: Holds
    limits: Limits
    breakers: Breakers
    retries: RetryBudget
    budgets: Budgets
    fallbacks: Fallbacks
    jitter: Callable[[], float]

    async def admit(self, performance: Performance) -> Verdict | None:
        """Let an attempt through, or say what becomes of its job instead. Whatever comes of it, `leave` follows."""
        if (said := await self.policies.review(performance)) is not None:
            return said
        if (turn := performance.context.conversation) is not None:
            seconds_left = partial(self.leases.seconds_left, *performance.attempt.lease)
            behind = await self.conversations.take(performance, turn, seconds_left=seconds_left)
            if behind is not None:
                return behind
        held: float = 0.0
        blocked: Blocked | None = None
        refused: BreakerOpen | None = None
        degrades = performance.spec.on_open == "degrade" and self.fallbacks.stands_in(performance)
        with suppress(asyncio.CancelledError):  # the next step gives the job back
            held, refused = await self._may_call(performance, parks=not degrades)
            if not held and refused is None:
                blocked = await self.limits.admit(performance.spec, performance.ring())
                if blocked is None:
                    # The last of them: the one call that may try must not wait for anything else.
                    refused = await self.breakers.admit(performance, parks=not degrades)
        if refused is not None and degrades:
            return await self.fallbacks.degrade(performance, rule=f"breaker {refused.state}")
        return self._held(performance, held, blocked, refused) or await self._pay(performance)

    def report(self, performance: Performance, returned: Any) -> None:
        """Say how the call of an attempt ended: what it returned, or its `Failure`. Returns at once."""
        self.breakers.report(performance, returned)

    async def leave(self, performance: Performance) -> None:
        """Follow up an `admit` once the attempt's outcome, or the hold, is in the ledger. Safe without one."""
        self.breakers.end(performance)
        # What cannot be used is no end; and what a budget kept from its intent was no retry.
        good = performance.intended is None or isinstance(performance.outcome, Success)
        if performance.paid is not None and good:
            self.retries.give_back(performance.paid)
        with suppress(asyncio.CancelledError):  # the place ends with its lease, too
            await self.limits.release(performance.spec, performance.attempt.job_id)

    async def _may_call(self, performance: Performance, *, parks: bool) -> tuple[float, BreakerOpen | None]:
        """Say for how long its dependency is held, or by whom it is refused, before it takes what others wait for.

        A place that is kept for it is given back then: to the next in line, where that one may call another.
        """
        spec, declared = performance.spec, performance.declared
        held = await self.holds.seconds_held(performance.dependency)
        if held:
            held = await self.holds.wait_seconds(
                performance.dependency,
                per_second=declared.release_per_second,
                at_most=performance.may_wait_seconds,
                needs=spec.policy.timeout,
                jitter=self.jitter(),
            )
        if not spec.limits.are_any:
            return held, None
        refused = None if held else await self.breakers.check(performance, parks=parks)
        if held or refused is not None:
            # Where it degrades, so does the next, and needs no place for that.
            degrades = refused is not None and not parks
            others_may = degrades or bool(declared.per) or not isinstance(spec.dependency, str)
            await self.limits.give_up(spec, performance.attempt.job_id, hands_on=others_may)
        return held, refused

    async def _pay(self, performance: Performance) -> Verdict | None:
        """Have a retry paid for; the last of all, since whoever is not let through should not have cost anything."""
        name, dependency, ticket = performance.dependency, performance.declared, performance.ticket
        if performance.attempt.number == 1:
            if not performance.attempt.intended_before:  # as it was where it only asked for patience, or is repaired
                self.retries.try_first(name, dependency)
            return None
        if ticket is not None and ticket.token:
            return None  # one call of the whole fleet tries whether it is well again: that is budget enough
        answer: Paid | float | None = None
        with suppress(asyncio.CancelledError):  # as above
            answer = await self.retries.pay(name, dependency)
        if not isinstance(answer, float):
            performance.paid = answer
            return None
        delay = round(answer * (1 + self.jitter() / 4), 3)
        return performance.verdict(
            State.WAITING, "retries used up", waiting_for="retries", waiting_on=name, delay=delay
        )

    def _held(
        self, performance: Performance, held: float, blocked: Blocked | None, refused: BreakerOpen | None
    ) -> Verdict | None:
        if held:
            delay, on = round(held, 3), performance.dependency
            return performance.verdict(State.WAITING, "dependency held", waiting_for="rate", waiting_on=on, delay=delay)
        if blocked is not None:
            return performance.verdict(State.WAITING, blocked.why, waiting_for=blocked.waiting_for, delay=blocked.delay)
        if refused is not None:
            why, on = f"breaker {refused.state}", refused.name
            return performance.verdict(
                State.WAITING, why, waiting_for="breaker", waiting_on=on, delay=round(refused.seconds, 3)
            )
        return None

"""What an action may know of the job it is performed for, and what it reports back beside its result."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from producer.envelope import DEFAULT_PRIORITY, OnClosed, Request
from producer.errors import InvalidRequest
from producer.spans import asked_within
from producer.trace import child_of, trace_id_of
from tasks._cost import Cost
from tasks._turn import Turn

# A model's server may say anything; beyond these it is a mistake, and must not cost the attempt its result.
COUNT_LIMIT = 10**12
COST_LIMIT = 10**6
# They are written in one statement with the outcome, for which everything else of the process waits.
FOLLOW_UPS_LIMIT = 1_000


@dataclass(frozen=True, slots=True)
class Repair:
    """What was wrong with the answer of the attempt before, for this one to have it repaired.

    Attributes:
        number: 1 for the first repair of the job.
        error: What the answer was refused for.
        answer: The answer, as text; the middle of a long one is left out.
    """

    number: int
    error: str
    answer: str


@dataclass(slots=True)
class Calls:
    """How the further calls of an attempt are paid for; the worker says it.

    Attributes:
        reserve: Reserves of the budgets, on the worker's loop; None where there is no worker.
        wait: Does so from a thread, and waits for it.
    """

    reserve: Callable[[Cost], Awaitable[None]] | None = None
    wait: Callable[[Cost], None] | None = None


class _Paid:
    """Nothing to wait for."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()


@dataclass(slots=True)
class Usage:
    """What an attempt used up. None is unknown, which is not zero."""

    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One attempt, as its action sees it. Ask for it with a parameter annotated ``Context``.

    Attributes:
        job_id: The job's id; stable over its attempts.
        action: The action's name.
        tenant: Whose job it is.
        attempt: 1 for the first try.
        request_id: The piece of work that the job belongs to.
        user_id: On whose behalf; None where the request did not say.
        agent_id: Who decided; None where the request did not say.
        traceparent: The attempt's span.
        deadline: On the process's monotonic clock: when the attempt will be cut off.
        log: A structlog logger with all of these bound.
        conversation: The one of which this is a turn; None where it is none.
        repair: What to repair, where the attempt before ended in an answer that could not be used; else None.
        calls: How `reserve` does it.
    """

    job_id: UUID
    action: str
    tenant: str
    attempt: int
    request_id: str
    user_id: str | None
    agent_id: str | None
    traceparent: str
    deadline: float
    log: Any
    usage: Usage = field(default_factory=Usage)
    follow_ups: list[Request] = field(default_factory=list)
    conversation: Turn | None = None
    repair: Repair | None = None
    calls: Calls = field(default_factory=Calls, repr=False)

    @property
    def trace_id(self) -> str:
        """The trace that the attempt belongs to, as 32 hexadecimal digits."""
        return trace_id_of(self.traceparent)

    @property
    def seconds_left(self) -> float:
        """How long the attempt may still take; give it to every call that can wait."""
        return max(0.0, self.deadline - time.monotonic())

    def downstream_key(self, step: int | str = 0) -> str:
        """Return the key to hand to the other side so that it drops repeats.

        The same for every attempt at the job, since a key per attempt would make each retry a new effect.

        Args:
            step: Tells several requests of one attempt apart.
        """
        return f"{self.job_id}:{step}"

    def headers(self) -> dict[str, str]:
        """Return the headers by which the other side can join this trace."""
        return {"traceparent": child_of(self.traceparent)}

    def enqueue(
        self,
        action: str,
        params: Any = None,
        *,
        idempotency_key: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        input: Any = None,  # noqa: A002  the word of the decision record
        reasoning: str | None = None,
        run_at: datetime | None = None,
        deadline: datetime | None = None,
        priority: int = DEFAULT_PRIORITY,
        queue: str | None = None,
        on_closed: OnClosed = "replay",
    ) -> None:
        """Have another job follow if, and only if, this attempt succeeds: it is accepted with the outcome.

        The arguments are `Request`'s, as they are now, but for the key: None is ``{job_id}:{n}`` for the n-th follow-up
        of an attempt, from 0. The job belongs to this one's request and trace, and unless told otherwise to its user
        and agent. All are checked once the action has returned; where one is refused, none is accepted and the result
        is not recorded: the job fails, or is in doubt where its action had an effect.

        Raises:
            InvalidRequest: For more than 1,000 follow-ups.
        """
        if len(self.follow_ups) >= FOLLOW_UPS_LIMIT:
            raise InvalidRequest("follow-ups", f"are more than {FOLLOW_UPS_LIMIT:,}; have one of them ask for the rest")
        request = Request(
            action=action,
            params=copy.deepcopy({} if params is None else params),
            idempotency_key=idempotency_key,
            user_id=self.user_id if user_id is None else user_id,
            request_id=self.request_id,
            agent_id=self.agent_id if agent_id is None else agent_id,
            input=copy.deepcopy(input),
            reasoning=reasoning,
            trace=asked_within(action, self.traceparent),
            run_at=run_at,
            deadline=deadline,
            priority=priority,
            queue=queue,
            on_closed=on_closed,
        )
        self.follow_ups.append(request)

    def reserve(self, cost: Cost) -> Awaitable[None]:
        """Reserve of the budgets what a further call of this attempt may cost, before it goes out.

        What the action's own ``cost=`` says is reserved already. Of an async action it is ``await ctx.reserve(…)``; of
        a sync one the call itself waits. All that an attempt has reserved is settled at its end, with all that it
        `used`.

        Raises:
            BudgetShort: If one of them has too little left. Uncaught, the attempt has failed: it is tried again once
                there is more, or the job ends where the budget refuses.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if self.calls.wait is not None:
                self.calls.wait(cost)
            return _Paid()
        return _Paid() if self.calls.reserve is None else self.calls.reserve(cost)

    def used(
        self, *, tokens_in: int | None = None, tokens_out: int | None = None, cost_usd: Decimal | None = None
    ) -> None:
        """Add to what the attempt used up; it is recorded with the outcome, good or bad.

        None adds nothing; nor does what cannot be: a negative count, a cost without end.
        """
        if tokens_in is not None and 0 <= tokens_in < COUNT_LIMIT:
            self.usage.tokens_in = (self.usage.tokens_in or 0) + tokens_in
        if tokens_out is not None and 0 <= tokens_out < COUNT_LIMIT:
            self.usage.tokens_out = (self.usage.tokens_out or 0) + tokens_out
        if cost_usd is not None and cost_usd.is_finite() and 0 <= cost_usd < COST_LIMIT:
            self.usage.cost_usd = (self.usage.cost_usd or Decimal(0)) + cost_usd

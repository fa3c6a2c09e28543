"""The gate of budgets: what an attempt may cost is reserved in the transaction of its intent, or there is no intent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import replace

from sqlalchemy.exc import DBAPIError

from producer.budget_words import BudgetRecord
from producer.ledger.states import State
from tasks import BudgetShort, Cost
from tasks._outcomes import Advice
from worker.budget_rules import RESERVED, Shortage, reservations, shortage
from worker.costs import cost_of
from worker.log import log
from worker.performance import Performance
from worker.retry import Verdict
from worker.statements import Granted
from worker.writer import Writer

# A budget that is new is kept within this time, a ceiling that is changed at once.
FRESH_SECONDS = 5.0
# Who was not let through, and finds that there is room by now, tries so often before he waits.
TRIES = 5
SHORT_SECONDS = 1.0


class Budgets:
    """The budgets as one worker process knows them, on its loop. What each has left, the ledger alone knows."""

    def __init__(self, writer: Writer, jitter: Callable[[], float]) -> None:
        """Read nothing yet.

        Args:
            writer: Reserves.
            jitter: Draws from [0, 1).
        """
        self._writer, self._jitter = writer, jitter
        self._known: Sequence[BudgetRecord] | None = None
        self._covering: dict[str, list[BudgetRecord]] = {}
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def intend(self, performance: Performance, *, seconds_left: Callable[[], float]) -> Granted | Verdict:
        """Record an attempt's intent, with what it reserves; or say what becomes of its job instead.

        An action that no budget covers has its plain intent, and nothing is asked of the ledger beside.

        Raises:
            OperationalError: If the ledger stayed away for as long as `seconds_left` says.
        """
        if self._is_free(performance.spec.name):
            return await self._writer.intend(performance.intent(), seconds_left=seconds_left)
        short = await self._ask(performance, seconds_left)
        if short is not None:
            return self._verdict(performance, short)
        for _ in range(TRIES):
            intent = performance.intent()
            granted = await self._writer.intend(intent, seconds_left=seconds_left)
            if granted != "budget" or intent.asking is None:
                return granted
            rows = await self._writer.room(intent.asking, seconds_left=seconds_left)
            short = shortage(rows, jitter=self._jitter())
            if short is not None:
                return self._verdict(performance, short)
        name = performance.reserved[0].budget
        return self._verdict(
            performance,
            Shortage(budget=name, why=RESERVED, refuses=False, delay=SHORT_SECONDS, facts={"budget": name}),
        )

    async def _ask(self, performance: Performance, seconds_left: Callable[[], float]) -> Shortage | None:
        """Find what the attempt has to reserve, and have its further calls reserve, too."""
        covering = await self._covering_of(performance.spec.name, seconds_left)
        if not covering:
            return None
        found = reservations(covering, _facts(performance), cost_of(performance))
        if isinstance(found, Shortage):
            return found
        performance.reserved = tuple(found)
        calls, loop = performance.context.calls, asyncio.get_running_loop()

        async def reserve(cost: Cost) -> None:
            await self._reserve(performance, cost, seconds_left)

        def wait(cost: Cost) -> None:
            asyncio.run_coroutine_threadsafe(reserve(cost), loop).result()

        calls.reserve, calls.wait = reserve, wait
        return None

    async def _reserve(self, performance: Performance, cost: Cost, seconds_left: Callable[[], float]) -> None:
        """Reserve for a further call of an attempt.

        Raises:
            BudgetShort: If a budget has too little left.
        """
        covering = await self._covering_of(performance.spec.name, seconds_left)
        found = reservations(covering, _facts(performance), cost)
        if isinstance(found, Shortage):
            raise _short(found)
        performance.further_calls += 1
        asked = tuple(replace(each, call=performance.further_calls) for each in found)
        asking = performance.asking(asked)
        if asking is None:
            return
        for _ in range(TRIES):
            if await self._writer.reserve(asking, seconds_left=seconds_left):
                performance.reserved += asked
                return
            short = shortage(await self._writer.room(asking, seconds_left=seconds_left), jitter=self._jitter())
            if short is not None:
                raise _short(short)
        raise BudgetShort("it has too little left, or the attempt has lost its job", budget=asked[0].budget, after=1.0)

    def _is_free(self, action: str) -> bool:
        """Whether it is known, and was lately, that no budget covers an action: what most attempts find."""
        return self._covering.get(action) == [] and time.monotonic() - self._read_at <= FRESH_SECONDS

    async def _covering_of(self, action: str, seconds_left: Callable[[], float]) -> list[BudgetRecord]:
        if self._known is None:
            await self._read(seconds_left)  # once a process: what nobody has read yet might forbid it
        elif time.monotonic() - self._read_at > FRESH_SECONDS and self._reading is None:
            # In a context of its own: it is no attempt's, and nothing cuts it off.
            self._reading = asyncio.get_running_loop().create_task(self._read_again(), context=Context())
        known = self._covering.get(action)
        if known is None:
            known = self._covering[action] = [each for each in self._known or () if each.covers(action)]
        return known

    async def _read(self, seconds_left: Callable[[], float]) -> None:
        self._known = await self._writer.budgets(seconds_left=seconds_left)
        self._covering.clear()
        self._read_at = time.monotonic()

    async def _read_again(self) -> None:
        until = time.monotonic() + FRESH_SECONDS
        try:
            await self._read(lambda: until - time.monotonic())
        except DBAPIError as error:  # what was known stands; it is asked again soon
            log.warning("budgets.unread", error=str(error.orig or error))
            self._read_at = time.monotonic()
        finally:
            self._reading = None

    def _verdict(self, performance: Performance, short: Shortage) -> Verdict:
        performance.reserved = ()
        facts = {"budget": short.facts}
        if short.refuses:
            error = {"type": "BudgetExhausted", "message": short.message, "traceback": ""}
            return performance.verdict(State.FAILED, short.why, error=error, **facts)
        return performance.verdict(
            State.WAITING, short.why, waiting_for="budget", waiting_on=short.budget, delay=short.delay, **facts
        )


def _short(short: Shortage) -> BudgetShort:
    advice: Advice = "refuse" if short.refuses else "retry"
    return BudgetShort(short.message, budget=short.budget, after=short.delay, advice=advice)


def _facts(performance: Performance) -> dict[str, str | None]:
    attempt = performance.attempt
    return {
        "action": attempt.action,
        "request": attempt.request_id,
        "agent": attempt.agent_id,
        "user": attempt.user_id,
        "tenant": attempt.tenant,
    }

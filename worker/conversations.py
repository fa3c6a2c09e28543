"""Taking turns: an attempt whose conversation somebody else has is held, and rung for when it is its turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from sqlalchemy.exc import DBAPIError

from producer.ledger.conversations import LOOK_SECONDS
from producer.ledger.states import CLOSED, State
from producer.ring import Ring
from tasks import Turn
from worker.attempt import Settlement
from worker.leases import LeaseLost
from worker.performance import Performance
from worker.retry import Verdict
from worker.turns import Behind, TurnWanted
from worker.writer import Writer


class Conversations:
    """The turns of one worker process's attempts."""

    def __init__(self, writer: Writer, *, ring: Callable[[Iterable[Ring]], None], jitter: Callable[[], float]) -> None:
        """Take none yet.

        Args:
            writer: The process's.
            ring: Must not block.
            jitter: Draws from [0, 1); spreads those that look again by themselves.
        """
        self._writer, self._ring, self._jitter = writer, ring, jitter

    async def take(self, performance: Performance, turn: Turn, *, seconds_left: Callable[[], float]) -> Verdict | None:
        """Take a job's turn, and show its action what was said so far.

        Returns:
            None where it has it; else that it waits.

        Raises:
            LeaseLost: If the job has another owner by now.
        """
        attempt = performance.attempt
        wanted = TurnWanted(attempt.lease, attempt.tenant, turn.id)
        answer = await self._writer.take_turn(wanted, seconds_left=seconds_left)
        if answer is None:
            raise LeaseLost(f"job {attempt.job_id} was taken over before its turn")
        if isinstance(answer, Behind):
            delay = round(LOOK_SECONDS * (1 + self._jitter() / 4), 3)
            why = "another turn is first"
            return performance.verdict(
                State.WAITING, why, waiting_for="conversation", delay=delay, behind=answer.job_id
            )
        turn.messages = answer.messages
        return None

    async def hand_over(self, settlement: Settlement, conversation: tuple[str, str]) -> None:
        """Ring for the job whose turn it is now, if any, once a turn's outcome is in the ledger.

        Or once it was held: whoever was ahead of it may have ended before that, and would have found nobody waiting.
        """
        if settlement.becomes not in CLOSED and settlement.waiting_for != "conversation":
            return
        with suppress(DBAPIError):  # the relays look again
            ring = await self._writer.next_turn(*conversation)
            if ring is not None:
                self._ring([ring])

"""Follow-ups: what an action asked for is sealed when it has returned, and rung for once it is accepted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace
from uuid import UUID

from producer.catalogue import ASK_AGAIN_SECONDS, FRESH_SECONDS, Actions
from producer.envelope import Envelope, Request
from producer.errors import InvalidRequest, RequestRefused, UnknownAction
from producer.ring import Ring
from producer.sealing import seal_by
from tasks import Context

# Of one attempt, together: they are written in one statement, for which whatever else the process writes has to wait.
CHARACTERS_LIMIT = 16 << 20

ReadActions = Callable[[], Awaitable[Actions]]


class FollowUps:
    """Seals and rings for one worker process. What workers have published is remembered, as a producer does."""

    def __init__(self, *, queue: str, ring: Callable[[Iterable[Ring]], None]) -> None:
        """Read nothing yet.

        Args:
            queue: For actions that name none.
            ring: Must not block.
        """
        self._queue, self._ring = queue, ring
        self._known: Actions = {}
        self._read_at = float("-inf")

    async def seal(self, context: Context, read: ReadActions) -> tuple[Envelope, ...]:
        """Return an attempt's follow-ups as the ledger will hold them, in the order in which it asked.

        Args:
            context: The attempt's.
            read: Reads the published actions, where what is remembered is old or refuses one.

        Raises:
            RequestRefused: For the first that cannot be accepted; the message says which.
            OperationalError: If `read` does.
        """
        sealed = []
        characters = 0
        for number, request in enumerate(context.follow_ups):
            envelope = await self._seal(context, number, request, read)
            characters += envelope.characters
            if characters > CHARACTERS_LIMIT:
                limit = f"{CHARACTERS_LIMIT:,} characters"
                problem = f"makes those of one attempt larger than {limit}; have one of them ask for the rest"
                raise InvalidRequest(f"follow_ups[{number}]", problem, number)
            sealed.append(envelope)
            await asyncio.sleep(0)  # a thousand of them must not keep the loop
        return tuple(sealed)

    def ring(self, accepted: Iterable[Envelope]) -> None:
        """Ring for follow-ups that are in the ledger and due; from any thread."""
        self._ring(
            Ring(e.id, e.action, e.queue, e.priority, e.traceparent, e.request_id, self._together(e.action))
            for e in accepted
        )

    async def _seal(self, context: Context, number: int, request: Request, read: ReadActions) -> Envelope:
        keyed = replace(request, idempotency_key=_key(context.job_id, number, request))
        refusal: RequestRefused | None = None
        async for known in self._looks(read):
            try:
                return seal_by(known, keyed, tenant=context.tenant, queue=self._queue, parent_job_id=context.job_id)
            except RequestRefused as error:  # by old news, perhaps: the next look is at what there is now
                refusal = error
        raise _placed(number, refusal) from refusal

    async def _looks(self, read: ReadActions) -> AsyncIterator[Actions]:
        """Yield what is remembered, and then, for whom that did not satisfy, what there is now."""
        age = time.monotonic() - self._read_at
        if age < FRESH_SECONDS:
            yield self._known
        if age >= ASK_AGAIN_SECONDS:
            self._known, self._read_at = await read(), time.monotonic()
            yield self._known

    def _together(self, action: str) -> int:
        known = self._known.get(action)
        return int(known.policy.get("ring_size", 1)) if known else 1


def _placed(number: int, refusal: RequestRefused | None) -> RequestRefused:
    """Have a refusal say which follow-up it is about."""
    if isinstance(refusal, InvalidRequest):
        return InvalidRequest(f"follow_ups[{number}].{refusal.where}", refusal.problem, number)
    if isinstance(refusal, UnknownAction):
        return UnknownAction(refusal.action, refusal.known, refusal.hint, number)
    return refusal or RequestRefused()


def _key(job_id: UUID, number: int, request: Request) -> str:
    """Return the key of a follow-up. Where its author gave none, it is the same for every attempt that asks alike."""
    return f"{job_id}:{number}" if request.idempotency_key is None else request.idempotency_key

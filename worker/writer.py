"""A worker's writes to the ledger: claim, intend, settle, renew. Nothing else here moves a job that it owns.

The first three go through `group_commit`: each row answers for itself, under its own fence, whatever it was written
together with. Renewals have a connection of their own, so that no crowd can keep them waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.engine import Connection

from producer.budget_words import BudgetRecord
from producer.catalogue import Actions
from producer.errors import RequestRefused
from producer.ledger.budgets import budgets
from producer.ledger.policies import PublishedPolicy, news
from producer.ledger.reads import published_actions
from producer.ring import Ring
from worker.attempt import Attempt, Intent, Lease, Settlement
from worker.budget_statements import Asking, reserve_calls, room
from worker.doubt import Doubt, Ruling
from worker.doubt_statements import Ruled, WantedLook, take_up, write_rulings
from worker.group_commit import GroupCommit, Kind
from worker.policy_statements import Review, Reviewed, intend_approved, review
from worker.settle_with import OnAccepted, settle_with
from worker.statements import Granted, Settled, Wanted, claim, intend, intend_reserving, settle, settle_spending
from worker.turns import Behind, Turn, TurnWanted, next_turns, take_turns

# How long a share of a budget may be locked by others, who hold it for a commit each: fifty of them are not a fault.
SHARE_PATIENCE = 2_000
# How long a ring waits for a ledger that is away before it is left to the relay.
CLAIM_PATIENCE_SECONDS = 2.0


class Writer:
    """Writes for one worker process. The coroutines belong on its loop; one thread writes for all of them."""

    def __init__(
        self,
        engine: Engine,
        *,
        worker: str,
        lease_seconds: float,
        on_claimed: Callable[[Iterable[Lease], float], Collection[Lease]] = lambda leases, _: [*leases],
        on_accepted: OnAccepted = lambda _: None,
    ) -> None:
        """Connect nothing yet.

        Args:
            engine: In autocommit, of this process alone; one connection of it is held for good.
            worker: Who the ledger says owns the jobs; unique among the living.
            lease_seconds: How long each claim, intent and renewal lasts, on the database's clock.
            on_claimed: Told, in the writer's thread, what was claimed, and when the claim left on the monotonic clock:
                before whoever asked hears of it. Returns which of it he may have.
            on_accepted: Told, in the writer's thread, which follow-ups were accepted and are due.
        """
        self.worker, self._lease, self._on_claimed = worker, lease_seconds, on_claimed
        self._on_accepted = on_accepted
        self._claims: Kind[Attempt | None] = Kind("claim", self._write_claims, None)
        self._intents: Kind[Granted] = Kind("intend", self._write_intents, "lost")
        # Apart: their statements are more, and whose budget is everybody's waits for everybody's commits.
        self._reserving: Kind[Granted] = Kind(
            "reserve", self._write_reserving, "lost", lock_milliseconds=SHARE_PATIENCE
        )
        self._calls: Kind[bool] = Kind(
            "reserve_call", self._write_calls, missing=False, lock_milliseconds=SHARE_PATIENCE
        )
        self._room: Kind[list[Any]] = Kind("room", self._read_room, [])
        self._budgets: Kind[list[BudgetRecord]] = Kind("budgets", _read_budgets, [])
        self._policies: Kind[Sequence[PublishedPolicy]] = Kind("policies", _read_policies, ())
        self._looks: Kind[Doubt | None] = Kind("take_up", self._write_looks, None)
        self._rulings: Kind[Ruled] = Kind("rule", self._write_rulings, "overtaken")
        self._settlements: Kind[Settled] = Kind("settle", self._write_settlements, "late")
        self._reviews: Kind[Reviewed | None] = Kind("review", self._write_reviews, None)
        self._approved_intents: Kind[Granted] = Kind("intend_approved", self._write_approved_intents, "lost")
        self._approved_reserving = replace(
            self._approved_intents, name="reserve_approved", lock_milliseconds=SHARE_PATIENCE
        )
        self._spending: Kind[Settled] = Kind("spend", self._write_spending, "late", lock_milliseconds=SHARE_PATIENCE)
        # Apart from the others, which need no transaction around their one statement.
        self._bringing: Kind[Settled | RequestRefused] = Kind("settle_with", self._write_bringing, "late")
        self._spending_with = replace(self._bringing, name="spend_with", lock_milliseconds=SHARE_PATIENCE)
        self._actions: Kind[Actions] = Kind("actions", _read_actions, {})
        self._turns: Kind[Turn | Behind | None] = Kind("take_turn", self._write_turns, None)
        self._next: Kind[Ring | None] = Kind("next_turn", next_turns, None)
        # What ends an attempt goes before what begins one: places become free before they are filled.
        ending = (self._settlements, self._spending, self._bringing, self._spending_with, self._rulings)
        intents = (self._approved_intents, self._approved_reserving, self._intents, self._reserving)
        beginning = (self._turns, self._reviews, *intents, self._claims, self._looks)
        reading = (self._actions, self._budgets, self._policies, self._room)
        kinds = (*ending, self._next, *reading, self._calls, *beginning)
        self._group = GroupCommit(engine, kinds)

    async def claim(self, wanted: Sequence[Wanted]) -> list[Attempt]:
        """Take over those of the jobs that are due and that nobody owns; leave out the others.

        A job that was accepted for another version of the action is left to a worker of that version: its params
        mean something else there.
        """
        rows = {each.job_id: each for each in wanted}
        answers = await self._group.write(self._claims, rows, seconds_left=_countdown(CLAIM_PATIENCE_SECONDS))
        return [attempt for attempt in answers.values() if attempt is not None]

    async def intend(self, intent: Intent, *, seconds_left: Callable[[], float]) -> Granted:
        """Record that the effect is about to happen, if it may.

        Returns:
            ``intended``; or ``cancelled`` or ``expired``, which its owner should settle; or ``lost`` where the lease
            ran out or the job has another owner; or ``unapproved`` where what it rests on is not there any more, was
            another request's, or is out of time; or ``budget`` where one of those has too little left. The effect of
            any but the first must not happen, and nothing is reserved for them.
        """
        kind = self._reserving if intent.asking is not None else self._intents
        if intent.approvals:
            kind = self._approved_intents if intent.asking is None else self._approved_reserving
        return (await self._group.write(kind, {intent.job_id: intent}, seconds_left=seconds_left))[intent.job_id]

    async def reserve(self, asking: Asking, *, seconds_left: Callable[[], float]) -> bool:
        """Reserve for a further call of an attempt under way; return whether there was room, and it has its job."""
        return (await self._group.write(self._calls, {asking.job_id: asking}, seconds_left=seconds_left))[asking.job_id]

    async def room(self, asking: Asking, *, seconds_left: Callable[[], float]) -> list[Any]:
        """Read how the budgets stand that an attempt asked in vain."""
        return (await self._group.write(self._room, {asking.job_id: asking}, seconds_left=seconds_left))[asking.job_id]

    async def budgets(self, *, seconds_left: Callable[[], float]) -> list[BudgetRecord]:
        """Read every budget; whoever asks in the same moment shares the answer."""
        key = object()
        return (await self._group.write(self._budgets, {key: key}, seconds_left=seconds_left))[key]

    async def policies(self, *, seconds_left: Callable[[], float] | None = None) -> Sequence[PublishedPolicy]:
        """Read every published policy; whoever asks in the same moment shares the answer."""
        key, left = object(), seconds_left or _countdown(CLAIM_PATIENCE_SECONDS)
        return (await self._group.write(self._policies, {key: key}, seconds_left=left))[key]

    async def review(self, review: Review, *, seconds_left: Callable[[], float]) -> Reviewed | None:
        """Write down what policies said of an attempt, and find what was approved; None where it is not ours."""
        answers = await self._group.write(self._reviews, {review.job_id: review}, seconds_left=seconds_left)
        return answers[review.job_id]

    async def settle(self, settlement: Settlement, *, seconds_left: Callable[[], float]) -> Settled:
        """Write how an attempt ended, with its decision's outcome and its event, or not at all.

        Returns:
            ``settled``; ``repeated`` where an earlier try of this same call had landed; or ``late`` where the job has
            another owner by now: what this attempt brought is an event and changes nothing. Its follow-ups are
            accepted with the first of these answers, and never with another.

        Raises:
            RequestRefused: If its follow-ups cannot be accepted; nothing was written, and the job is still ours.
        """
        rows = {settlement.job_id: settlement}
        if not settlement.brings:
            kind = self._settlements if settlement.spent is None else self._spending
            return (await self._group.write(kind, rows, seconds_left=seconds_left))[settlement.job_id]
        bringing = self._bringing if settlement.spent is None else self._spending_with
        answers = await self._group.write(bringing, rows, seconds_left=seconds_left)
        answer = answers[settlement.job_id]
        if isinstance(answer, RequestRefused):
            raise answer
        return answer

    async def take_turn(self, wanted: TurnWanted, *, seconds_left: Callable[[], float]) -> Turn | Behind | None:
        """Take a job's turn of its conversation, if it is its; None where the job has another owner by now."""
        key = wanted.lease[0]
        return (await self._group.write(self._turns, {key: wanted}, seconds_left=seconds_left))[key]

    async def next_turn(self, tenant: str, conversation_id: str) -> Ring | None:
        """Return the ring for the held job whose turn it is now, if there is one."""
        key = tenant, conversation_id
        seconds_left = _countdown(CLAIM_PATIENCE_SECONDS)
        return (await self._group.write(self._next, {key: key}, seconds_left=seconds_left))[key]

    async def take_up(self, wanted: Sequence[WantedLook]) -> list[Doubt]:
        """Take up those of the jobs that are in doubt and due to be looked at; leave out the others."""
        rows = {each.job_id: each for each in wanted}
        answers = await self._group.write(self._looks, rows, seconds_left=_countdown(CLAIM_PATIENCE_SECONDS))
        return [doubt for doubt in answers.values() if doubt is not None]

    async def rule(self, ruling: Ruling, *, seconds_left: Callable[[], float]) -> Ruled:
        """Write what a look at a job in doubt found, with its event.

        Returns:
            ``ruled``; or ``overtaken`` where somebody else has moved the job or looks at it by now, or an earlier try
            of this same call had landed: nothing was written.
        """
        answers = await self._group.write(self._rulings, {ruling.job_id: ruling}, seconds_left=seconds_left)
        return answers[ruling.job_id]

    async def actions(self, *, seconds_left: Callable[[], float]) -> Actions:
        """Read what workers have published; whoever asks in the same moment shares the answer."""
        key = object()
        return (await self._group.write(self._actions, {key: key}, seconds_left=seconds_left))[key]

    # ---- on the writer's thread --------------------------------------------------------------------------------

    def _write_claims(self, connection: Connection, wanted: Sequence[Wanted]) -> dict[UUID, Attempt | None]:
        left_at = time.monotonic()
        attempts = claim(connection, self.worker, self._lease, wanted)
        ours = self._on_claimed([attempt.lease for attempt in attempts], left_at)
        return {attempt.job_id: attempt for attempt in attempts if attempt.lease in ours}

    def _write_intents(self, connection: Connection, intents: Sequence[Intent]) -> dict[UUID, Granted]:
        return intend(connection, self.worker, self._lease, intents)

    def _write_reviews(self, connection: Connection, reviews: Sequence[Review]) -> dict[UUID, Reviewed | None]:
        return review(connection, self.worker, reviews)

    def _write_approved_intents(self, connection: Connection, intents: Sequence[Intent]) -> dict[UUID, Granted]:
        return intend_approved(connection, self.worker, self._lease, intents)

    def _write_reserving(self, connection: Connection, intents: Sequence[Intent]) -> dict[UUID, Granted]:
        return intend_reserving(connection, self.worker, self._lease, intents)

    def _write_spending(self, connection: Connection, settlements: Sequence[Settlement]) -> dict[UUID, Settled]:
        return settle_spending(connection, self.worker, settlements)

    def _write_calls(self, connection: Connection, askings: Sequence[Asking]) -> dict[UUID, bool]:
        return reserve_calls(connection, self.worker, askings)

    def _read_room(self, connection: Connection, askings: Sequence[Asking]) -> dict[UUID, list[Any]]:
        return room(connection, askings)

    def _write_looks(self, connection: Connection, wanted: Sequence[WantedLook]) -> dict[UUID, Doubt | None]:
        return {doubt.attempt.job_id: doubt for doubt in take_up(connection, wanted)}

    def _write_rulings(self, connection: Connection, rulings: Sequence[Ruling]) -> dict[UUID, Ruled]:
        return write_rulings(connection, self.worker, rulings)

    def _write_settlements(self, connection: Connection, settlements: Sequence[Settlement]) -> dict[UUID, Settled]:
        return settle(connection, self.worker, settlements)

    def _write_bringing(
        self, connection: Connection, settlements: Sequence[Settlement]
    ) -> dict[UUID, Settled | RequestRefused]:
        return settle_with(connection, self.worker, settlements, on_accepted=self._on_accepted)

    def _write_turns(self, connection: Connection, wanted: Sequence[TurnWanted]) -> dict[UUID, Turn | Behind]:
        return take_turns(connection, self.worker, wanted)


def _read_budgets(connection: Connection, asked: Sequence[object]) -> dict[object, list[BudgetRecord]]:
    return dict.fromkeys(asked, budgets(connection))


def _read_policies(connection: Connection, asked: Sequence[object]) -> dict[object, Sequence[PublishedPolicy]]:
    return dict.fromkeys(asked, news(connection, None))


def _read_actions(connection: Connection, asked: Sequence[object]) -> dict[object, Actions]:
    known = published_actions(connection)
    return dict.fromkeys(asked, known)


def _countdown(seconds: float) -> Callable[[], float]:
    until = time.monotonic() + seconds
    return lambda: until - time.monotonic()

"""Turns of two conversations, taken by two workers in any order, held to whose turn it is by a model of that alone.

How a job stands is read from the ledger, for another model says how it should (`ledger_model`). This one knows who has
the turn and what was said. What a worker was told stays in its hands, so that it comes with old fences, and twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule
from sqlalchemy import text
from sqlalchemy.engine import Connection
from uuid_utils.compat import uuid7

from producer.acting import Actor
from producer.conversation import Message
from producer.envelope import Request, seal
from producer.ledger import conversations
from producer.ledger.accept import accept
from producer.ledger.cancel import cancel
from producer.ledger.resolve import Verdict, resolve
from producer.ledger.states import OPEN, State
from tests.integration.ledger_model.clock import set_clock
from tests.integration.ledger_model.look import put_others_away
from tests.integration.test_statements import intent, settlement
from worker import turns
from worker.attempt import Attempt
from worker.rescue import rescue
from worker.settle_with import settle_with
from worker.statements import Wanted, claim, intend

EVE = Actor("eve", "test")
WORKERS, TEST = ("ann", "bob"), "test"
TALKS = ("x", "y")
ACTION, LEASE_SECONDS, HOUR = "talk.say", 30.0, timedelta(hours=1)
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = text("""
SELECT id, conversation_id, state, waiting_for, due_at, ring_at, fence, lease_owner FROM jobs WHERE tenant = :tenant
ORDER BY id
""")
SAID = text("SELECT conversation_id, job_id, seq, content FROM messages WHERE tenant = :tenant ORDER BY seq")
TURNS = text("SELECT id, turn_of FROM conversations WHERE tenant = :tenant")

Ending = Literal["succeeded", "failed", "waiting", "in_doubt"]
ENDINGS: tuple[Ending, ...] = ("succeeded", "failed", "waiting", "in_doubt")
tenants = (f"turns {number}" for number in itertools.count(1))
workers = st.sampled_from(WORKERS)


@dataclass(slots=True, eq=False)
class Hand:
    """A claimed job in a worker's hands, and how far it has come with it."""

    worker: str
    attempt: Attempt
    talk: str
    behind: bool = False
    took: bool = False
    intended: bool = False


@dataclass(slots=True)
class Talk:
    """A conversation as it should be: who took its turn last, and what was said by whom."""

    turn_of: UUID | None = None
    said: list[tuple[UUID, str]] = field(default_factory=list)


class TurnsMachine(RuleBasedStateMachine):
    """Every rule is a step of somebody's, or time that passes."""

    jobs: Bundle[UUID] = Bundle("jobs")
    hands: Bundle[Hand] = Bundle("hands")

    def __init__(self, connections: Mapping[str, Connection]) -> None:
        """Begin with a tenant that has no jobs."""
        super().__init__()
        self.connections, self.tenant, self.now = connections, next(tenants), BEGINNING
        self.talks = {talk: Talk() for talk in TALKS}
        put_others_away(connections[TEST])
        set_clock(connections[TEST], self.now)

    @initialize(target=jobs)
    def begin_with_two(self) -> Any:
        """Of which the first may come only once the second has begun."""
        return multiple(self.accept("x", later=True), self.accept("x", later=False))

    @rule(target=jobs, talk=st.sampled_from(TALKS), later=st.booleans())
    def accept(self, talk: str, *, later: bool) -> UUID:
        job_id: UUID = uuid7()
        run_at = self.now + HOUR if later else None
        envelope = seal(
            Request(action=ACTION, params={"c": talk}, idempotency_key=str(job_id), run_at=run_at),
            tenant=self.tenant,
            version=1,
            queue="q",
            now=self.now,
            new_id=lambda: job_id,
            conversation="c",
        )
        accept(self.connections[TEST], [envelope], rings=True)
        return job_id

    @rule(target=hands, worker=workers, job_id=jobs)
    def claim(self, worker: str, job_id: UUID) -> Any:
        wanted = [Wanted(ACTION, 1, job_id)]
        found = claim(self.connections[worker], worker, LEASE_SECONDS, wanted)
        return multiple(*(Hand(worker, attempt, str(attempt.conversation_id)) for attempt in found))

    @rule(hand=hands)
    def take(self, hand: Hand) -> None:
        """Whoever has the job has its turn if nobody else is first, and is given all that was said."""
        row, ahead = self._rows()[hand.attempt.job_id], self._ahead(hand.talk)
        wanted = turns.TurnWanted(hand.attempt.lease, self.tenant, hand.talk)
        answer = turns.take_turns(self.connections[hand.worker], hand.worker, [wanted]).get(row.id)
        mine = (row.state, row.fence, row.lease_owner) == (State.CLAIMED, hand.attempt.fence, hand.worker)
        if not mine:
            assert answer is None
        elif ahead != row.id:
            assert ahead is not None
            assert answer == turns.Behind(ahead)
            hand.behind = True
        else:
            assert isinstance(answer, turns.Turn)
            given = [(message.job_id, message.content) for message in answer.messages]
            assert given == self.talks[hand.talk].said
            hand.took, self.talks[hand.talk].turn_of = True, row.id
        self._check()

    @rule(hand=hands, effect=st.sampled_from(["pure", "unsafe"]))
    def intend(self, hand: Hand, effect: str) -> None:
        if hand.took:
            asked = intent(hand.attempt, effect, None if effect == "pure" else 0.0)
            answer = intend(self.connections[hand.worker], hand.worker, LEASE_SECONDS, [asked])
            hand.intended = hand.intended or answer.get(asked.job_id) == "intended"
        self._check()

    @rule(hand=hands, ending=st.sampled_from(ENDINGS), says=st.integers(0, 2))
    def settle(self, hand: Hand, ending: Ending, says: int) -> None:
        """What a success says is there with it; whoever lost the job says nothing."""
        if not hand.intended:
            return
        said = [f"{hand.attempt.fence}.{n}" for n in range(says if ending == "succeeded" else 0)]
        waits: dict[str, Any] = {"waiting_for": "retry", "delay": 10.0} if ending == "waiting" else {}
        messages = tuple(Message(role="user", content=content) for content in said)
        doubt = ending == "in_doubt"
        answer = self._settle(hand, State(ending), messages=messages, maybe_happened=doubt, **waits)
        if answer == "settled":
            self.talks[hand.talk].said += [(hand.attempt.job_id, content) for content in said]
        self._check()

    @rule(hand=hands)
    def hold(self, hand: Hand) -> None:
        if hand.behind and not hand.took:
            held = {"was": State.CLAIMED, "kind": "held", "waiting_for": "conversation", "delay": 20.0, "rings": False}
            self._settle(hand, State.WAITING, **held)
        self._check()

    @rule(worker=workers, job_id=jobs, ending=st.sampled_from(ENDINGS))
    def attempt(self, worker: str, job_id: UUID, ending: Ending) -> None:
        """The steps of an attempt that nothing comes in between."""
        found = claim(self.connections[worker], worker, LEASE_SECONDS, [Wanted(ACTION, 1, job_id)])
        for attempt in found:
            hand = Hand(worker, attempt, str(attempt.conversation_id))
            self.take(hand)
            self.hold(hand)
            self.intend(hand, "unsafe")
            self.settle(hand, ending, 1)
            self.ring_for_the_next(worker, hand.talk)

    @rule(worker=workers, talk=st.sampled_from(TALKS))
    def ring_for_the_next(self, worker: str, talk: str) -> None:
        """The first in line is rung for where nobody has the turn and it is held."""
        ahead, rows = self._ahead(talk), self._rows()
        holder = rows.get(self.talks[talk].turn_of)
        free = holder is None or holder.state not in OPEN
        expected = ahead if free and ahead is not None and _is_held(rows[ahead]) else None
        ring = turns.next_turns(self.connections[worker], [(self.tenant, talk)]).get((self.tenant, talk))
        assert (None if ring is None else ring.job_id) == expected
        self._check()

    @rule(worker=workers)
    def put_off(self, worker: str) -> None:
        """A relay puts off whoever is held and whose turn it is not."""
        held = [row for row in self._rows().values() if _is_held(row)]
        expected = {row.id for row in held if self._ahead(row.conversation_id) != row.id}
        seen = [(row.id, row.ring_at) for row in held]
        assert conversations.put_off_turns(self.connections[worker], seen) == expected
        self._check()

    @rule(job_id=jobs, verdict=st.sampled_from(["cancel", "happened", "retry", "abandon"]))
    def speak(self, job_id: UUID, verdict: Verdict | Literal["cancel"]) -> None:
        connection = self.connections[TEST]
        if verdict == "cancel":
            cancel(connection, self.tenant, job_id, reason=None, actor=EVE)
        else:
            resolve(connection, self.tenant, job_id, verdict, result="1", reason="so", actor=EVE)
        conversations.wake_turns(connection, [job_id])
        self._check()

    @rule(seconds=st.sampled_from([1.0, 10.0, 31.0, 3600.0]))
    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        set_clock(self.connections[TEST], self.now)
        rescue(self.connections[TEST], worker=TEST, crash_cap=3)
        self._check()

    def teardown(self) -> None:
        """Nobody is left behind: with time, whoever is open has its turn and ends."""
        for _ in range(3 * len(self._rows()) + 3):
            rows = [row for row in self._rows().values() if row.state in OPEN]
            if not rows:
                return
            self.wait(3600.0)
            for row in rows:
                self.speak(row.id, "abandon")
            self.put_off(WORKERS[0])
            for row in rows:
                if row.ring_at <= self.now:
                    self.attempt(WORKERS[0], row.id, "succeeded")
        raise AssertionError(f"still open: {[(row.state, row.waiting_for) for row in rows]}")

    # ---- within ------------------------------------------------------------------------------------------------

    def _rows(self) -> dict[UUID | None, Any]:
        return {row.id: row for row in self.connections[TEST].execute(ROWS, {"tenant": self.tenant})}

    def _ahead(self, talk: str) -> UUID | None:
        """Whose turn it is: his who has it until he is done with it, else the first accepted of those that can come."""
        rows = self._rows()
        holder = rows.get(self.talks[talk].turn_of)
        if holder is not None and holder.state in OPEN:
            return self.talks[talk].turn_of
        later = {row.id for row in rows.values() if row.state == State.QUEUED and row.due_at > self.now}
        line = (row.id for row in rows.values() if row.conversation_id == talk and row.state in OPEN)
        return next((job_id for job_id in line if job_id not in later), None)

    def _settle(self, hand: Hand, becomes: State, **fields: Any) -> object:
        outcome = settlement(hand.attempt, becomes, conversation=(self.tenant, hand.talk), **fields)
        connection = self.connections[hand.worker]
        return settle_with(connection, hand.worker, [outcome], on_accepted=lambda _: None)[outcome.job_id]

    def _check(self) -> None:
        asked, connection = {"tenant": self.tenant}, self.connections[TEST]
        rows, messages = self._rows().values(), connection.execute(SAID, asked).all()
        turn_of = {row.id: row.turn_of for row in connection.execute(TURNS, asked)}
        for talk, model in self.talks.items():
            said = [message for message in messages if message.conversation_id == talk]
            assert [(message.job_id, message.content) for message in said] == model.said
            assert [message.seq for message in said] == [*range(1, len(said) + 1)]
            assert turn_of.get(talk) == model.turn_of
            running = {row.id for row in rows if row.conversation_id == talk and row.state == State.RUNNING}
            assert running <= {model.turn_of}, "two turns at a time"


def _is_held(row: Any) -> bool:
    return bool(row.state == State.WAITING and row.waiting_for == "conversation")

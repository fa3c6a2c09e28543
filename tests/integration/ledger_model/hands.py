"""What a worker of the machine holds and writes: the attempts that it was told of, its intents and outcomes."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from hypothesis import strategies as st

from producer.envelope import Envelope, OnClosed
from producer.ledger.states import LEASED, MOVES, State
from tasks import EffectClass
from tests.integration.ledger_model.rows import Claimed
from worker.attempt import Intent, Lease, Settlement
from worker.retry import repeat_seconds

KEY_TTL_SECONDS = 100.0
QUIET_SECONDS = 40.0
ERROR = {"type": "Oops", "message": "no answer", "traceback": ""}
# Where a job that may have had its effect can be left; nothing else says so.
DOUBT_SHOWS = frozenset({State.WAITING, State.IN_DOUBT, State.SUCCEEDED, State.DEGRADED})
# Why it waits, the event's kind, and how many attempts are given back, by the state that it comes from.
WAITS = {
    State.RUNNING: [
        ("retry", "attempt_failed", 0),
        ("rate", "held", 1),
        ("worker", "returned", 1),
        ("repair", "repair", 1),
    ],
    State.CLAIMED: [("rate", "held", 0), ("concurrency", "held", 0), ("worker", "returned", 0)],
}
ids = (UUID(int=number) for number in itertools.count(1 << 64))


@dataclass(frozen=True, slots=True)
class Wish:
    """A request, with its moments in seconds from now."""

    key: str
    x: int
    on_closed: OnClosed
    run_in: float | None
    deadline_in: float | None

    def envelope(self, tenant: str, now: datetime) -> Envelope:
        """Make of it what the ledger is given."""
        return Envelope(
            id=next(ids),
            tenant=tenant,
            action="test.add",
            action_version=1,
            idempotency_key=self.key,
            key_derived=False,
            fingerprint=hashlib.sha256(str(self.x).encode()).hexdigest(),
            params=f'{{"x":{self.x}}}',
            input=None,
            reasoning=None,
            user_id=None,
            agent_id=None,
            request_id="r",
            traceparent="00-0-0-00",
            queue="actions",
            priority=5,
            run_at=None if self.run_in is None else now + timedelta(seconds=self.run_in),
            deadline=None if self.deadline_in is None else now + timedelta(seconds=self.deadline_in),
            on_closed=self.on_closed,
            parent_job_id=None,
            conversation_id=None,
        )


wishes = st.builds(
    Wish,
    key=st.sampled_from(["k1", "k2"]),
    x=st.sampled_from([1, 1, 1, 2]),
    on_closed=st.sampled_from(["replay", "rerun", "rerun_if_failed"]),
    run_in=st.sampled_from([None, None, None, 0.0, -8.0, 20.0]),
    deadline_in=st.sampled_from([None, None, 25.0, 70.0]),
)


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ends, before it is known from where: the numbers choose among what is legal there.

    Attributes:
        honest: Whether it says truly from which state it moves the job.
        knows: Whether it is known that this attempt had no effect.
    """

    honest: bool
    knows: bool
    becomes: int
    waits: int
    delay: float
    rings: bool


endings = st.builds(
    Ending,
    honest=st.sampled_from([True, True, True, True, False]),
    knows=st.booleans(),
    becomes=st.integers(0, 9),
    waits=st.integers(0, 3),
    delay=st.sampled_from([0.0, 5.0, 40.0]),
    rings=st.booleans(),
)


@dataclass(slots=True, eq=False)
class Ticket:
    """A lease that a worker was told is its own; it keeps it after it has lost it.

    Attributes:
        intended: Whether the effect was granted.
        risky: Whether such a one may be a second effect if it is repeated.
    """

    worker: str
    claimed: Claimed
    intended: bool = False
    risky: bool = False

    @property
    def lease(self) -> Lease:
        return self.claimed.job_id, self.claimed.fence

    def intent(self, effect: EffectClass) -> Intent:
        """Ask for an effect of this class."""
        job_id, fence = self.lease
        seconds = repeat_seconds(effect, KEY_TTL_SECONDS)
        quiet = QUIET_SECONDS if effect is EffectClass.VERIFIABLE else None
        return Intent(job_id=job_id, fence=fence, effect=effect, repeat_seconds=seconds, quiet_seconds=quiet, data={})

    def settlement(self, ending: Ending) -> Settlement:
        """Say how the attempt ended, as a runner would: what may have happened is never said not to have."""
        was = State.RUNNING if self.intended is ending.honest else State.CLAIMED
        doubtful = self.claimed.maybe_happened or (was is State.RUNNING and self.risky and not ending.knows)
        legal = sorted((MOVES[was] & DOUBT_SHOWS if doubtful else MOVES[was]) - LEASED)
        becomes = State(legal[ending.becomes % len(legal)])
        waits, kind, unspent = (
            WAITS[was][ending.waits % len(WAITS[was])] if becomes is State.WAITING else (None, str(becomes), 0)
        )
        succeeded = becomes is State.SUCCEEDED
        return Settlement(
            job_id=self.claimed.job_id,
            fence=self.claimed.fence,
            attempt=self.claimed.number,
            was=was,
            becomes=becomes,
            kind=kind,
            waiting_for=waits,
            # In doubt, it is looked up after a delay, if anything can.
            delay=ending.delay if becomes in {State.WAITING, State.IN_DOUBT} else None,
            rings=ending.rings,
            unspent=unspent,
            maybe_happened=(doubtful and not succeeded) or becomes is State.IN_DOUBT,
            result=3 if succeeded else 4 if becomes is State.DEGRADED else None,
            data={"why": "out of retries"},
            repair={"error": "no", "answer": "7"} if waits == "repair" else None,
            error=None if succeeded else ERROR,
            tokens_in=2 if was is State.RUNNING else None,
        )


def together(first: Ticket, others: Iterable[Ticket]) -> list[Ticket]:
    """Return those that can be written together: one worker's, and of each job one."""
    batch = {first.claimed.job_id: first}
    for ticket in others:
        if ticket.worker == first.worker:
            batch.setdefault(ticket.claimed.job_id, ticket)
    return list(batch.values())

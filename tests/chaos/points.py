"""The named points along one job's way at which the crash matrix has somebody die, in the order of the way.

Where a point is, `injected` and `asker` say: they wrap the product's own functions, which know nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A place on a job's way.

    Attributes:
        where: What has been done there, and what has not.
        dies: Whom death finds: the process that asks, the worker that performs, or the one that rescues.
        asks_within: Whether the job is asked for within the asker's own transaction, and so is the relay's to ring.
        waits: Whether the first attempt fails before its request, and the job waits for its retry.
        hold: Where the effect server keeps the request: ``arrived``, before the effect, or ``applied``, after it.
        drops: Whether the effect server hangs up instead of answering.
        parks: Whether a process parks there; else the harness sees in the ledger or the world that it is reached.
        intended: Whether the intent may be committed there, so that an effect may have happened.
        goes_on: Whether the job may be anywhere by the time of the death: who parks there is done with it.
        looked_up: Whether only jobs come there whose effect is looked up.
        holds_renewals: Whether who parks there renews no lease meanwhile.
    """

    name: str
    where: str
    dies: Literal["asker", "worker", "rescuer"] = "worker"
    asks_within: bool = False
    waits: bool = False
    hold: Literal["arrived", "applied"] | None = None
    drops: bool = False
    parks: bool = True
    intended: bool = False
    goes_on: bool = False
    looked_up: bool = False
    holds_renewals: bool = False


POINTS = (
    Point(name="accept.before", where="asked, nothing accepted", dies="asker"),
    Point(name="accept.committed", where="accepted, not rung", dies="asker"),
    Point(
        name="relay.before_mark", where="a relay has seen that it is due", asks_within=True, intended=True, goes_on=True
    ),
    Point(name="relay.before_ring", where="the relay has marked it as rung, and has not rung", asks_within=True),
    Point(name="relay.after_ring", where="the relay has rung", asks_within=True, intended=True, goes_on=True),
    Point(name="ring.received", where="the ring has left Redis"),
    Point(name="claim.before", where="the claim is about to leave"),
    Point(name="claim.committed", where="claimed, the worker has not heard"),
    Point(name="intend.before", where="admitted, the intent is about to leave"),
    Point(name="intend.committed", where="intended, the worker has not heard", intended=True),
    Point(name="perform.before", where="intended, nothing sent", intended=True),
    Point(
        name="request.arrived", where="the request is there, no effect yet", hold="arrived", parks=False, intended=True
    ),
    Point(name="effect.held", where="the effect is there, its answer held", hold="applied", parks=False, intended=True),
    Point(name="effect.dropped", where="the effect is there, its answer lost", drops=True, intended=True),
    Point(name="effect.answered", where="the answer is there, nothing settled", intended=True),
    Point(
        name="renewal.before",
        where="a renewal is kept back",
        hold="applied",
        intended=True,
        goes_on=True,
        holds_renewals=True,
    ),
    Point(name="stop.draining", where="mid-effect, told to stop", hold="applied", parks=False, intended=True),
    Point(name="settle.before", where="the outcome is about to leave", intended=True),
    Point(name="settle.committed", where="settled, the worker has not heard", intended=True),
    Point(name="ack.before", where="settled, the ring not acknowledged", intended=True),
    Point(name="ack.after", where="the ring is acknowledged", intended=True),
    Point(name="retry.waiting", where="it waits for its retry", waits=True, parks=False),
    Point(name="retry.due", where="its retry is due and not rung", waits=True),
    Point(
        name="rescue.before",
        where="another saw the lease run out",
        dies="rescuer",
        hold="applied",
        intended=True,
        goes_on=True,
    ),
    Point(
        name="rescue.committed",
        where="another has taken it over",
        dies="rescuer",
        hold="applied",
        intended=True,
        goes_on=True,
    ),
    Point(
        name="take_up.committed",
        where="in doubt, a look is taken up, nobody has looked",
        drops=True,
        intended=True,
        looked_up=True,
    ),
    Point(name="rule.before", where="it was looked up, nothing ruled", drops=True, intended=True, looked_up=True),
    Point(name="rule.committed", where="ruled, the worker has not heard", drops=True, intended=True, looked_up=True),
)

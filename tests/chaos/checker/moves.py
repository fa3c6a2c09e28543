"""I7: a job only makes legal moves, and its row is the sum of its events.

The events are replayed against the product's own table of moves, and the row that comes out is compared with the one in
the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from producer.ledger.states import CLOSED, LEASED, MOVES, State
from tests.chaos.checker.findings import Finding, Tally
from tests.chaos.checker.view import JobView, View, about, event_name
from tests.chaos.ledger_rows import EventRow

I7 = "I7"
# Events that leave a job where it is.
STILL = frozenset({"replayed", "cancel_requested", "late_result", "policy", "budget_reserved", "budget_settled"}) | {
    "approved_ahead",
    "rejected_ahead",
    "approval_escalated",
    "approval_superseded",
}
WAITS: Mapping[str, State] = dict.fromkeys(("attempt_failed", "held", "returned", "repair"), State.WAITING)
# A true result that another job brought for a degraded one.
SUPERSEDED: Mapping[str, State] = {"superseded": State.SUCCEEDED}
FIRST: Mapping[str, State] = {"accepted": State.QUEUED}
BY_A_PERSON: Mapping[str, State] = {"retried": State.QUEUED}
ASKED: Mapping[str, State] = {"approval_requested": State.AWAITING_APPROVAL}
BY_OWNER: Mapping[str, State] = {"claimed": State.CLAIMED, "intended": State.RUNNING}
# These say themselves where they moved it.
SAYING = frozenset({"rescued", "resolved", "verified", "rejected", "approval_expired", "approval_withdrawn"}) | {
    "approval_edited"
}
# One of several who have to moves it nowhere.
APPROVED = "approved"
ENDS: Mapping[str, State] = {str(state): state for state in (*CLOSED, State.IN_DOUBT)}
NAMED: Mapping[str, State] = {**FIRST, **BY_A_PERSON, **ASKED, **BY_OWNER, **WAITS, **SUPERSEDED, **ENDS}


@dataclass(slots=True)
class Row:
    """What the events so far make of a job's row; a `waiting_for` of "?" is one that the event does not say."""

    state: State | None = None
    waiting_for: str | None = None
    attempt: int = 0
    crashes: int = 0
    fence: int = 0
    lease_owner: str | None = None
    cancel_requested: bool = False

    def take(self, event: EventRow) -> None:
        """Add an event."""
        data, was, now = event.data or {}, self.state, moved_to(event)
        self.fence = max(self.fence, event.fence or 0) if event.kind != "late_result" else self.fence
        self.cancel_requested |= event.kind in ("cancel_requested", "cancelled")
        if now is None:
            return
        self.state = now
        self.waiting_for = None
        if now == State.WAITING:
            said = "?" if event.kind == "verified" else {"rescued": "worker", "resolved": "retry"}.get(event.kind)
            self.waiting_for = said or data.get("waiting_for")
        if event.kind == "claimed":
            self.lease_owner = event.worker
        elif now not in LEASED:
            self.lease_owner = None
        if event.kind == "intended":
            self.attempt += 1
        elif event.kind in ("held", "returned", "repair") and was == State.RUNNING:
            self.attempt -= 1  # what was given back is not spent
        elif event.kind == "rescued":
            self.crashes += 1
        elif event.kind == "retried" or (event.kind == "resolved" and now == State.WAITING):
            self.crashes = 0


def moved_to(event: EventRow) -> State | None:
    """Return the state that an event moves its job to; None where it does not, or where the event is unknown."""
    if event.kind in SAYING or event.kind == APPROVED:
        said = (event.data or {}).get("to")
        return State(said) if isinstance(said, str) and said in {*State} else None
    return NAMED.get(event.kind)


def legal_moves(view: View, tally: Tally) -> Iterator[Finding]:
    """Find moves that the table does not know, and rows that are not what their events say."""
    for job in view.jobs.values():
        row = Row()
        for event in job.events:
            tally.judged += moved_to(event) is not None
            yield from _move(job, row, event)
            row.take(event)
        yield from _compared(job, row)
    tally.figures["jobs"] = len(view.jobs)


def _move(job: JobView, row: Row, event: EventRow) -> Iterator[Finding]:
    name, data, target = event_name(event), event.data or {}, moved_to(event)
    if event.kind not in NAMED.keys() | STILL | SAYING | {APPROVED}:
        yield about(I7, job, "an event of a known kind", repr(event.kind), name)
    if event.kind in SAYING and target is None:
        yield about(I7, job, "an event that says where it moved the job", f"to {data.get('to')!r}", name)
    if event.kind == "rescued" and (data.get("from"), data.get("crashes")) != (row.state, row.crashes + 1):
        found = f"from {data.get('from')}, crash {data.get('crashes')}"
        yield about(I7, job, f"a rescue from {row.state}, crash {row.crashes + 1}", found, name)
    if event.kind == "rescued" and data.get("silent") != row.lease_owner:
        yield about(I7, job, f"a rescue from its owner, {row.lease_owner}", f"from {data.get('silent')}", name)
    if event.kind == "intended" and event.attempt != row.attempt + 1:
        yield about(I7, job, f"attempt {row.attempt + 1}", f"attempt {event.attempt}", name)
    if target is None or (event.kind == "verified" and target == row.state):
        return
    if (row.state == State.DEGRADED) != (event.kind in SUPERSEDED) and target == State.SUCCEEDED:
        yield about(I7, job, "a true result for a degraded job, and for none else", repr(event.kind), name)
    legal = event.kind in FIRST if row.state is None else target in MOVES[row.state] and event.kind not in FIRST
    if not legal:
        yield about(I7, job, f"a legal move from {row.state or 'nothing'}", f"to {target}", name)


def _compared(job: JobView, row: Row) -> Iterator[Finding]:
    held, events = job.row, f"{len(job.events)} events"
    expected = {
        "state": row.state,
        "attempt": row.attempt,
        "crashes": row.crashes,
        "lease_owner": row.lease_owner,
        "waiting_for": held.waiting_for if row.waiting_for == "?" else row.waiting_for,
    }
    # Who looks at a job in doubt raises its fence and adds no event until the look has said something.
    looked_at = any(moved_to(event) == State.IN_DOUBT for event in job.events)
    if held.fence < row.fence or (held.fence != row.fence and not looked_at):
        expected["fence"] = row.fence
    for name, value in expected.items():
        if getattr(held, name) != value:
            found = f"{name} {getattr(held, name)}"
            yield about(I7, job, f"{name} {value}, as its events say", found, "ledger.json jobs", events)
    if (held.finished_at is not None) != (held.state in CLOSED):
        found = f"{held.state}, finished at {held.finished_at}"
        yield about(I7, job, "a moment of its end if it has ended, and none else", found)

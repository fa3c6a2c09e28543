"""What must be true of the ledger whatever the model says: of its rows, and of two looks one statement apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from producer.ledger.states import CLOSED, LEASED, MOVES, State
from tests.integration.ledger_model.rows import Event, Row

# No worker and no clock may leave a job so whose effect may have happened.
SAYS_NOTHING_HAPPENED = frozenset({State.CANCELLED, State.EXPIRED, State.FAILED, State.REJECTED})
WAITS = {"attempt_failed", "held", "returned", "repair"}
LEAVES_IT_THERE = {"replayed", "cancel_requested", "late_result"}
OPEN = frozenset(State) - CLOSED


def broken_by_a_row(row: Row, *, touched: bool) -> Iterable[str]:
    """Say which laws one row breaks; `touched` is whether its effect may have happened outside."""
    leased = row.state in LEASED
    if (row.lease_expires_at is not None, row.lease_owner is not None) != (leased, leased):
        yield f"a job that is {row.state} has a lease of {row.lease_owner} until {row.lease_expires_at}"
    if (row.finished_at is not None) != (row.state in CLOSED):
        yield f"a job that is {row.state} finished at {row.finished_at}"
    if touched and not row.maybe_happened and row.state not in {State.RUNNING, State.SUCCEEDED, State.DEGRADED}:
        yield f"its effect may have happened, and the ledger that has it {row.state} does not say so"
    if row.maybe_happened and row.state in SAYS_NOTHING_HAPPENED:
        yield f"its effect may have happened, and it is {row.state}"
    if row.maybe_happened and row.state is State.DEAD and all(event.kind != "resolved" for event in row.events):
        yield "its effect may have happened, and it is dead although nobody gave it up"
    if (folded := fold(row.events)) != Standing(row.state, row.fence, row.attempt, row.crashes):
        yield f"its history says {folded}"


def broken_by_keys(rows: Iterable[Row]) -> Iterable[str]:
    """Say which keys stand for more than one job that has not ended, or skip a rerun."""
    rows = list(rows)
    for key, jobs in Counter(row.key for row in rows if row.state in OPEN).items():
        if jobs > 1:
            yield f"key {key} has {jobs} open jobs"
    for key in {row.key for row in rows}:
        reruns = sorted(row.rerun for row in rows if row.key == key)
        if reruns != list(range(len(reruns))):
            yield f"key {key} has the reruns {reruns}"


def broken_by_a_step(before: Mapping[UUID, Row], after: Mapping[UUID, Row]) -> Iterable[str]:
    """Say which laws are broken between two looks with one statement between them."""
    if missing := before.keys() - after.keys():
        yield f"jobs are gone: {missing}"
    for job_id, was in before.items():
        row = after[job_id]
        if row.state is not was.state and row.state not in MOVES[was.state]:
            yield f"a job went from {was.state} to {row.state}"
        if row.fence < was.fence or row.rerun != was.rerun or row.replays < was.replays:
            yield f"fence, rerun or replays fell: {was.fence}, {was.rerun}, {was.replays}"
        if row.lease_owner != was.lease_owner and row.lease_owner is not None and row.fence == was.fence:
            yield f"{row.lease_owner} has the lease under the fence {row.fence} that was {was.lease_owner}'s"
        if row.events[: len(was.events)] != was.events:
            yield "a line of its history has changed"


@dataclass(frozen=True, slots=True)
class Standing:
    """What a job's history says of it."""

    state: State
    fence: int
    attempt: int
    crashes: int


def fold(events: Sequence[Event]) -> Standing:
    """Tell a job's history from its beginning; return how the job must stand by the end of it."""
    state, fence, attempt, crashes = State.QUEUED, 0, 0, 0
    for event in events:
        match event.kind:
            case "accepted":
                pass
            case "claimed":
                state, fence = State.CLAIMED, event.fence or 0
            case "intended":
                state, attempt = State.RUNNING, event.attempt or 0
            case "rescued":
                state, fence, crashes = State(event.to or ""), event.fence or 0, crashes + 1
            case "resolved":
                state, fence = State(event.to or ""), event.fence or 0
                crashes = 0 if state is State.WAITING else crashes
            case "superseded":
                state = State.SUCCEEDED
            case kind if kind in WAITS:
                state = State.WAITING
                attempt = attempt if kind == "attempt_failed" else min(attempt, (event.attempt or 0) - 1)
            case kind if kind not in LEAVES_IT_THERE:
                state = State(kind)
    return Standing(state, fence, attempt, crashes)

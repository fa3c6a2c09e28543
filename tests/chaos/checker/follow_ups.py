"""Follow-ups: those that a parent's success announced are there, and no others (a part of I1 and of I2)."""

from __future__ import annotations

from collections.abc import Iterator

from producer.ledger.states import State
from tests.chaos.checker.findings import Finding
from tests.chaos.checker.view import JobView, View, about


def announced_by(parent: JobView) -> int:
    """Return how many jobs an outcome announced: a success its follow-ups, a fallback one for the true result."""
    asked = [(event.kind, event.data or {}) for event in parent.events]
    left = sum("true_result" in data for kind, data in asked if kind == State.DEGRADED)
    return left + sum(int(data.get("follow_ups", 0)) for kind, data in asked if kind == State.SUCCEEDED)


def missing(view: View, invariant: str) -> Iterator[Finding]:
    """Find parents whose outcome is in the ledger without all of its follow-ups.

    A follow-up under a key of its author's own may be one that stands already, of another parent; those of a run have
    none.
    """
    for parent in view.jobs.values():
        announced, children = announced_by(parent), view.children_of(parent.row.id)
        if children < announced:
            expected = f"{announced} follow-ups, accepted with the outcome that asked for them"
            yield about(invariant, parent, expected, f"{children} of them", "ledger.json decisions")


def beyond(view: View, invariant: str, job: JobView, parent_id: str) -> Iterator[Finding]:
    """Find a follow-up whose parent asked for fewer than there are."""
    parent = view.jobs.get(parent_id)
    announced = 0 if parent is None else announced_by(parent)
    children = view.children_of(parent_id)
    if children > announced:
        found = f"{children} follow-ups of {parent_id}, which asked for {announced}"
        yield about(invariant, job, "its parent succeeded and asked for it", found)

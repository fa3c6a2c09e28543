"""I13: the history has no gap, and two looks at it see the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.chaos.checker.findings import Finding, Tally
from tests.chaos.checker.view import JobView, View, about
from tests.chaos.ledger_rows import Snapshot

I13 = "I13"
NAMED = 5  # differing rows in one finding


def whole_history(view: View, tally: Tally) -> Iterator[Finding]:
    """Find gaps in histories, events of nobody, and rows that moved although the run had drained."""
    ledger = view.evidence.ledger
    tally.judged = len(ledger.first.events)
    tally.figures["events"] = tally.judged
    for job in view.jobs.values():
        yield from _events(job)
        if job.decision is None:
            yield about(I13, job, "a decision for every job", "none", "ledger.json decisions")
    known = view.jobs.keys()
    for kind, rows in (("event", ledger.first.events), ("decision", ledger.first.decisions)):
        for job_id in sorted({row.job_id for row in rows} - known):
            expected = f"no {kind} without its job"
            yield Finding(invariant=I13, expected=expected, found=f"one of {job_id}", job=job_id)
    yield from _equal(ledger.first, ledger.second)


def _events(job: JobView) -> Iterator[Finding]:
    seqs = [event.seq for event in job.events]
    if seqs != list(range(1, len(seqs) + 1)) or not seqs:
        yield about(I13, job, "events that count from 1 without a gap", f"{seqs}", "ledger.json events")
    elif job.events[0].kind != "accepted":
        yield about(I13, job, "a history that begins with the acceptance", f"it begins with {job.events[0].kind}")
    if job.row.last_seq != len(seqs):
        yield about(I13, job, f"{job.row.last_seq} events, as its row says", f"{len(seqs)} events")
    for earlier, later in zip(job.events, job.events[1:], strict=False):
        if later.at < earlier.at:
            found = f"event {later.seq} at {later.at}, event {earlier.seq} at {earlier.at}"
            yield about(I13, job, "events in the order of their moments", found)


def _equal(first: Snapshot, second: Snapshot) -> Iterator[Finding]:
    for name, rows in first.rows.items():
        one, other = _by_id(rows), _by_id(second.rows[name])
        differing = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
        if differing:
            found = f"{len(differing)} {name} differ: {', '.join(differing[:NAMED])}"
            yield Finding(
                invariant=I13,
                expected="two exports of a drained ledger are equal",
                found=found,
                rests_on=("ledger.json first", "ledger.json second"),
            )


def _by_id(rows: Sequence[Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return the rows' columns by what tells them apart: their primary keys."""
    names = [column.name for column in rows[0].TABLE.primary_key] if rows else []
    return {"/".join(str(row.columns[name]) for name in names): row.columns for row in rows}

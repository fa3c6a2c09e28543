"""I17: nothing begins after its deadline, and what expired had one. I18: only what somebody cancels is cancelled."""

from __future__ import annotations

from collections.abc import Iterator

from producer.ledger.states import State
from tests.chaos.checker.findings import Finding, Tally
from tests.chaos.checker.view import View, about, event_name
from tests.chaos.evidence import Cancel

I17, I18 = "I17", "I18"
# What the ledger says of a statement that it cannot carry out. Whoever asks for what cannot be is answered in words.
OURS = ("IntegrityError", "ProgrammingError", "DataError", "InternalError")


def deadlines_hold(view: View, tally: Tally) -> Iterator[Finding]:
    """Find attempts that began after their job's deadline, and ends for a deadline that had not passed."""
    expired = 0
    for job in view.jobs.values():
        deadline = job.row.deadline_at
        tally.judged += deadline is not None
        for event in job.events:
            if event.kind == "intended" and deadline is not None and event.at > deadline:
                yield about(I17, job, f"no attempt after {deadline}", f"one at {event.at}", event_name(event))
            if event.kind == State.EXPIRED:
                expired += 1
                if deadline is None or event.at < deadline:
                    yield about(I17, job, f"an end at its deadline, {deadline}", f"at {event.at}", event_name(event))
    tally.figures["expired"] = expired


def cancels_hold(view: View, tally: Tally) -> Iterator[Finding]:
    """Find jobs that nobody cancelled, jobs that went on although somebody was told that they would not, and refusals.

    To cancel is never wrong: it fails where the ledger is away, and not otherwise.
    """
    asked: dict[str, list[Cancel]] = {}
    for line in view.evidence.cancels:
        asked.setdefault(line.job_id, []).append(line)
    tally.judged = sum(line.op == "ok" for line in view.evidence.cancels)
    tally.figures["cancelled"] = sum(job.row.state == State.CANCELLED for job in view.jobs.values())
    for job in view.jobs.values():
        lines = asked.get(job.row.id, [])
        where = tuple(f"cancels.jsonl:{line.line}" for line in lines)
        moved = [event for event in job.events if event.kind in ("cancelled", "cancel_requested")]
        if moved and not any(line.op == "invoke" and line.at <= moved[0].at for line in lines):
            yield about(I18, job, "somebody who asked for it", event_name(moved[0]), *where)
        if any(line.answer == "cancelled" for line in lines) and job.row.state != State.CANCELLED:
            found = f"it is {job.row.state}"
            yield about(I18, job, "cancelled, as whoever asked was told", found, *where)
    for line in view.evidence.cancels:
        if line.error is not None and line.error.startswith(OURS):
            expected, where = "an answer, or an outage", (f"cancels.jsonl:{line.line}",)
            yield Finding(invariant=I18, expected=expected, found=line.error, job=line.job_id, rests_on=where)
    for job_id, lines in asked.items():
        if job_id not in view.jobs and any(line.op == "ok" for line in lines):
            yield Finding(invariant=I18, expected="a job that can be cancelled", found="none", job=job_id)

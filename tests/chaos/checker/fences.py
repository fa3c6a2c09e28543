"""I8: a job that has moved on takes no writes from whoever had it. I9: it has one owner at a time, and not for ever.

Moments of events are the database's: of one statement, they are read a little after the lease was given or ended.
"""

from __future__ import annotations

from collections.abc import Iterator

from producer.ledger.states import LEASED, State
from tests.chaos.checker.findings import Finding, Tally
from tests.chaos.checker.moves import moved_to
from tests.chaos.checker.view import STOPS, JobView, View, about, event_name
from tests.chaos.ledger_rows import EventRow

I8, I9 = "I8", "I9"
RAISE = frozenset({"claimed", "rescued", "resolved", "retried", "verified"})
# What is written of an attempt although its job has moved on: what it brought, and what it spent.
LATE = frozenset({"late_result", "budget_settled"})
# Between two looks at the clock within one statement, on a machine that does other things, too.
CLOCK_SECONDS = 0.5
# The faults after which Postgres has only what it had written to the disk.
CRASHES = frozenset({"postgres_disk", "postgres_immediate", "postgres_kill"})
# What a worker says whose write, or whose lease, was refused.
REFUSED = frozenset({"attempt.late", "attempt.lost", "lease.lost"})
# What Celery says where the ring named that job alone.
LOST_ALONE = "raised unexpected: LeaseLost("


def fences_rise(view: View, tally: Tally) -> Iterator[Finding]:
    """Find fences that did not rise and writes that were accepted under an old one.

    In a long run that stopped workers, none of whom ever wrote late, nothing was judged.
    """
    late = {job_id for job_id, job in view.jobs.items() if any(event.kind == "late_result" for event in job.events)}
    for job in view.jobs.values():
        tally.judged += sum(event.fence is not None for event in job.events)
        yield from _fences(view, job)
    refused = [line for line in view.evidence.logs if line.event in REFUSED or LOST_ALONE in line.event]
    for line in refused:
        job_id = line.fields.get("job_id")
        if line.event == "attempt.late" and isinstance(job_id, str) and job_id in view.jobs and job_id not in late:
            where = f"{line.file}:{line.line}"
            yield about(I8, view.jobs[job_id], "a late result is an event of its job", "there is none", where)
    results = sum(event.kind == "late_result" for job in view.jobs.values() for event in job.events)
    tally.figures |= {"late results on record": results, "refused writers in the logs": len(refused)}
    stopped = any(fault.fault in STOPS for fault in view.evidence.faults)
    if view.run.kind == "run" and stopped and not results and not refused:
        tally.judged = 0


def _fences(view: View, job: JobView) -> Iterator[Finding]:
    highest, owner, before = 0, None, 0.0
    for event in job.events:
        if event.fence is None:
            before = before or event.at
            continue
        since, before = before, event.at
        name = event_name(event)
        if event.kind in RAISE:
            if event.fence <= highest:
                yield about(I8, job, f"a fence above {highest}", f"fence {event.fence}", name)
            highest, owner = max(highest, event.fence), event.worker if event.kind == "claimed" else None
        elif event.kind in LATE:
            forgotten = event.fence == highest + 1 and _postgres_crashed(view, since, event.at)
            if event.fence > highest and not forgotten:
                yield about(I8, job, f"a late result under fence {highest} or lower", f"fence {event.fence}", name)
        elif event.fence != highest:
            yield about(I8, job, f"a write under fence {highest}", f"accepted under fence {event.fence}", name)
        elif event.worker != owner:
            found = f"accepted from {event.worker}"
            yield about(I8, job, f"a write by the owner, {owner or 'whom the job has not'}", found, name)
    if job.row.fence < highest:
        yield about(I8, job, f"a row with fence {highest} or higher", f"fence {job.row.fence}")


def _postgres_crashed(view: View, since: float, until: float) -> bool:
    """Whether Postgres crashed since the job's last write under a fence, or its acceptance, and until another one.

    It may have forgotten a claim, which does not wait for the disk.
    """
    return any(fault.fault in CRASHES and since <= fault.at <= until for fault in view.evidence.faults)


def one_owner(view: View, tally: Tally) -> Iterator[Finding]:
    """Find claims that overlap, leases cut short, and jobs tried more often than their policy allows."""
    crashes = 0
    for job in view.jobs.values():
        tally.judged += sum(event.kind == "claimed" for event in job.events)
        crashes += sum(event.kind == "rescued" for event in job.events)
        yield from _claims(view, job)
        yield from _attempts(job)
        yield from _crashes(view, job)
    tally.figures["crashes"] = crashes


def _claims(view: View, job: JobView) -> Iterator[Finding]:
    held: EventRow | None = None  # the claim under which somebody owns the job
    extended = ended = 0.0
    for event in job.events:
        target, name = moved_to(event), event_name(event)
        if event.kind == "claimed":
            if held is not None:
                yield about(I9, job, f"no claim while {held.worker} has it", f"{event.worker} claims", name)
            elif event.at < ended:
                yield about(I9, job, f"a claim after {ended}, when the last one ended", f"claimed at {event.at}", name)
            held, extended = event, event.at
        elif event.kind == "intended":
            extended = event.at
        elif target is not None and target not in LEASED and held is not None:
            lasted = event.at - extended
            if event.kind == "rescued" and lasted < view.run.lease_seconds - CLOCK_SECONDS:
                expected = f"a lease of {view.run.lease_seconds} s before others take over"
                yield about(I9, job, expected, f"taken over after {lasted:.3f} s", name)
            held, ended = None, event.at


def _attempts(job: JobView) -> Iterator[Finding]:
    if job.facts is None or job.facts.max_retries is None:
        return
    rescued = sum(event.kind == "rescued" for event in job.events)
    # A person who says that it did not happen, or is worth another try, has it tried again, whatever was before.
    again = sum(
        event.kind == "retried" or (event.kind == "resolved" and moved_to(event) == State.WAITING)
        for event in job.events
    )
    allowed = job.facts.max_retries + 1 + rescued + again
    reached = max([job.row.attempt, *(event.attempt or 0 for event in job.events if event.kind == "intended")])
    if reached > allowed:
        retries = f"{job.facts.max_retries} retries, {rescued} crashes and {again} verdicts"
        yield about(I9, job, f"{allowed} attempts at most, by {retries}", f"{reached} attempts")


def _crashes(view: View, job: JobView) -> Iterator[Finding]:
    cap = view.run.crash_cap
    if job.row.crashes > cap:
        yield about(I9, job, f"{cap} crashes at most", f"{job.row.crashes} crashes")
    for event in job.events:
        counted = (event.data or {}).get("crashes", 0) if event.kind == "rescued" else 0
        if counted >= cap and moved_to(event) == State.WAITING:
            found = f"tried again after crash {counted}"
            yield about(I9, job, f"no further try after {cap} crashes", found, event_name(event))

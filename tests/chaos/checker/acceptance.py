"""I1: nothing that was accepted is lost. I2: nothing is there, and nothing happens, that nobody asked for."""

from __future__ import annotations

from collections.abc import Iterator

from producer.ledger.states import CLOSED, State
from tests.chaos.checker.findings import Finding, Tally
from tests.chaos.checker.follow_ups import beyond, missing
from tests.chaos.checker.ticks import due_ticks, is_due, tick_of, ticks_have_jobs
from tests.chaos.checker.view import Arrival, Asked, JobView, View, about
from tests.chaos.evidence import digest

I1, I2 = "I1", "I2"
# Where a job may stand once the run has drained: it has ended, or a person can see that it is theirs.
SETTLED = CLOSED | {State.IN_DOUBT, State.AWAITING_APPROVAL}


def no_loss(view: View, tally: Tally) -> Iterator[Finding]:
    """Find keys that were answered for and do not stand for one job, and jobs that are still on their way."""
    for (action, key), calls in view.asked.items():
        answered = [asked for asked in calls if asked.end is not None and asked.end.op == "ok"]
        tally.judged += len(answered)
        yield from _key(view, action, key, calls, answered)
    for job in view.jobs.values():
        if job.row.state not in SETTLED:
            yield about(I1, job, "an end, or open work that a person sees, after the drain", f"it is {job.row.state}")
    yield from missing(view, I1)
    yield from ticks_have_jobs(view, invariant=I1)
    unsure = sum(asked.end is None or asked.end.op == "info" for asked in view.calls())
    tally.figures |= {"asked": sum(1 for _ in view.calls()), "answered": tally.judged, "unsure": unsure}
    tally.judged += sum(1 for schedule in view.run.schedules for _ in due_ticks(schedule))


def _key(view: View, action: str, key: str, calls: tuple[Asked, ...], answered: list[Asked]) -> Iterator[Finding]:
    rows = [job.row for job in view.jobs_of(action, key)]
    where = tuple(f"history.jsonl:{line.line}" for asked in calls for line in (asked.invoke, asked.end) if line)
    if len(rows) > 1 or (answered and not rows):
        expected = "one job for a key that was accepted" if answered else "one job at most"
        ids = ", ".join(row.id for row in rows)
        yield Finding(invariant=I1, expected=expected, found=ids or "none", key=key, rests_on=where)
    for asked in answered:
        end = asked.end
        if end is None or not rows or end.job_id in {row.id for row in rows}:
            continue
        found = f"the answer names {end.job_id}, the ledger has {rows[0].id}"
        yield Finding(invariant=I1, expected="the job that was named", found=found, key=key, rests_on=where)
    created = sum(asked.end is not None and asked.end.outcome == "created" for asked in answered)
    if created > 1:
        found = f"{created} calls were told that they created it"
        yield Finding(
            invariant=I1, expected="a key is created once, then replayed", found=found, key=key, rests_on=where
        )


def no_phantom(view: View, tally: Tally) -> Iterator[Finding]:
    """Find jobs that nobody asked for, and effects that no committed intent had announced."""
    for job in view.jobs.values():
        tally.judged += 1
        yield from _asked_for(view, job)
    for arrival in view.arrivals:
        tally.judged += 1
        yield from _announced(view, arrival)
    tally.figures["requests"] = len(view.arrivals)


def _asked_for(view: View, job: JobView) -> Iterator[Finding]:
    row, calls = job.row, view.asked_for(job.row.action, job.row.idempotency_key)
    if row.rerun:
        yield about(I2, job, "no job is run anew, since nobody asked for that", f"rerun {row.rerun}")
    if job.decision is not None and job.decision.parent_job_id is not None:
        yield from beyond(view, I2, job, job.decision.parent_job_id)
        return
    if tick_of(view, job) is not None:
        yield from is_due(view, job, invariant=I2)
        return
    possible = [asked for asked in calls if asked.may_be_accepted]
    where = tuple(f"history.jsonl:{asked.invoke.line}" for asked in calls)
    if not possible:
        found = "each was refused" if calls else "nobody asked"
        yield about(I2, job, "somebody asked for it and was not refused", found, *where)
    elif all(asked.invoke.at > row.accepted_at for asked in possible):
        yield about(I2, job, "it is accepted after it was asked for", f"accepted at {row.accepted_at}", *where)
    prints = {asked.invoke.fingerprint for asked in possible if asked.invoke.fingerprint is not None}
    if prints and row.fingerprint not in prints:
        yield about(I2, job, "the request that was made", f"fingerprint {row.fingerprint}", *where)


def _announced(view: View, arrival: Arrival) -> Iterator[Finding]:
    first = arrival.first
    job = view.jobs.get(first.ref)
    if job is None or job.row.action != first.action:
        yield Finding(
            invariant=I2,
            expected="a request of a job in the ledger, by its own action",
            found=f"{first.action} for {first.ref}",
            job=first.ref,
            key=first.key,
            rests_on=arrival.where,
        )
        return
    if first.mode != "pure":  # their intents do not wait for the disk, and a crashed Postgres may have forgotten them
        yield from _intended(job, arrival)
    if arrival.went("looked_up"):
        return
    params = None if job.decision is None else digest(job.decision.params)
    if first.body_hash != params:
        found = f"body {first.body_hash[:12]}, params {(params or 'none')[:12]}"
        yield about(I2, job, "the request that was accepted is the one that is made", found, *arrival.where)
    if first.key is not None and not first.key.startswith(f"{job.row.id}:"):
        yield about(I2, job, f"a downstream key of the job, {job.row.id}:…", first.key, *arrival.where)


def _intended(job: JobView, arrival: Arrival) -> Iterator[Finding]:
    first = arrival.first
    intents = [
        event
        for event in job.events
        if event.kind == "intended" and (first.attempt is None or event.attempt == first.attempt)
    ]
    if any(event.at <= first.at for event in intents):
        return
    earliest = min((event.at for event in intents), default=None)
    found = "none" if earliest is None else f"the intent at {earliest}, the request at {first.at}"
    which = "" if first.attempt is None else f" of attempt {first.attempt}"
    yield about(I2, job, f"an intent{which} before its request arrives", found, *arrival.where)

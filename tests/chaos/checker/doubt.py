"""I6: whatever may have happened is shown as such, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator

from producer.ledger.states import State
from tests.chaos.checker.effects import was_abandoned
from tests.chaos.checker.findings import Finding, Tally
from tests.chaos.checker.moves import moved_to
from tests.chaos.checker.view import JobView, View, about
from tests.chaos.ledger_rows import EventRow

I6 = "I6"
CLOCK_SECONDS = 0.1
# What an answer may take, on a full machine, from the world's books, over its disk, to whoever waits for it.
READING_SECONDS = 2.0


def honest_doubt(view: View, tally: Tally) -> Iterator[Finding]:
    """Find effects that nobody is told of, and doubt for which there was no reason.

    The figures say how often doubt was right: of the jobs that were ever in doubt, how many effects had happened.
    """
    doubted = happened = 0
    for job in view.jobs.values():
        doubts = [event for event in job.events if moved_to(event) == State.IN_DOUBT]
        hidden = bool(job.applied) and job.row.state not in (State.SUCCEEDED, State.DEGRADED)
        tally.judged += bool(doubts) or (hidden and job.effect != "pure")
        doubted += bool(doubts)
        happened += bool(doubts) and bool(job.applied)
        if hidden and job.effect != "pure" and job.row.state != State.IN_DOUBT and not was_abandoned(job):
            where = (line for arrival in job.applied for line in arrival.where)
            yield about(I6, job, "an effect without a result is in doubt", f"it is {job.row.state}", *where)
        if job.row.state == State.IN_DOUBT and not job.row.maybe_happened:
            yield about(I6, job, "a job in doubt whose effect may have happened", "maybe_happened is false")
        for event in doubts:
            yield from _reason(view, job, event)
    tally.figures |= {"ever in doubt": doubted, "of these happened": happened}


def _reason(view: View, job: JobView, doubt: EventRow) -> Iterator[Finding]:
    where = f"event {doubt.seq} ({doubt.kind})"
    intents = [event for event in job.events if event.kind == "intended" and event.seq < doubt.seq]
    if job.effect == "pure" or not intents:
        found = "its action is pure" if job.effect == "pure" else "it never had an intent"
        yield about(I6, job, "doubt only after an intent that can have had an effect", found, where)
    elif not view.run.expect_faults:
        yield about(I6, job, "no doubt in a run without faults", "it came into doubt", where)
    else:
        # What was on its way to the ledger when its sender was killed, or all stood still, may get there after that.
        since = _claim_of(job, intents[0]).at
        if not _overlaps_a_fault(view, job, since, doubt.at) and not _waited_in_vain(job, doubt):
            found = f"no fault, and every request was answered, in {doubt.at - since:.2f} s from its claim to its doubt"
            yield about(I6, job, "a fault behind every doubt", found + _last(view, since), where)


def _claim_of(job: JobView, intent: EventRow) -> EventRow:
    """Return the claim under which an intent was written; where the history has none, the intent."""
    return next((e for e in reversed(job.events) if e.kind == "claimed" and e.seq < intent.seq), intent)


def _last(view: View, moment: float) -> str:
    """Say what was the last that is known of faults before a moment."""
    before = max((each for each in view.evidence.faults if each.at < moment), key=lambda each: each.at, default=None)
    return f"; {moment - before.at:.2f} s before it, {before.fault} of {before.target}" if before is not None else ""


def _overlaps_a_fault(view: View, job: JobView, since: float, until: float) -> bool:
    """Whether something was broken meanwhile, or the world did not answer."""
    begun: dict[tuple[str, str], float] = {}
    for fault in view.evidence.faults:
        if fault.phase == "begin":
            begun[fault.fault, fault.target] = fault.at
            if since <= fault.at <= until:
                return True
        elif begun.pop((fault.fault, fault.target), fault.at) <= until and fault.at >= since:
            return True
    unanswered = (arrival for arrival in job.requests if not arrival.went("answered"))
    return any(line.phase == "dropped" and since <= line.at <= until for each in unanswered for line in each.lines)


def _waited_in_vain(job: JobView, doubt: EventRow) -> bool:
    """Whether the attempt had all of its time, and the world had not answered it before that was over.

    Its time was told when the intent was handed over, some time between its claim and the intent's commit.
    """
    last = next((e for e in reversed(job.events) if e.kind == "intended" and e.seq < doubt.seq), None)
    timeout = (last.data or {}).get("timeout") if last is not None else None
    if last is None or not isinstance(timeout, int | float):
        return False
    over = _claim_of(job, last).at + timeout
    if doubt.at < over - CLOCK_SECONDS:
        return False
    latest = min(doubt.at, over - READING_SECONDS)
    asked = [arrival for arrival in job.requests if last.at <= arrival.first.at <= doubt.at]
    # One that had too little time may be over before its request has reached the world.
    return not asked or any(
        not any(line.phase == "answered" and line.at <= latest for line in each.lines) for each in asked
    )

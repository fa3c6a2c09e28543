"""What the ledger says of effects, held against the world's own books.

I3: no effect happens twice. I4: what succeeded has happened. I5: what was given up has not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from producer.ledger.states import State
from tests.chaos.checker.findings import Finding, Tally
from tests.chaos.checker.moves import moved_to
from tests.chaos.checker.view import Arrival, JobView, View, about
from tests.chaos.evidence import digest

I3, I4, I5 = "I3", "I4", "I5"
WITHOUT_EFFECT = frozenset({State.FAILED, State.REJECTED, State.EXPIRED, State.CANCELLED, State.DEAD})
ONCE = frozenset({"keyed", "verifiable", "unsafe"})


def no_double_effect(view: View, tally: Tally) -> Iterator[Finding]:
    """Find effects that happened twice, and requests that could have made them."""
    requests = applied = 0
    for job in view.jobs.values():
        if job.effect == "pure" or not job.requests:
            continue
        tally.judged += 1
        requests += len(job.requests)
        applied += len(job.applied)
        yield from _twice(job)
    tally.figures |= {"requests": requests, "applied": applied}


def _twice(job: JobView) -> Iterator[Finding]:
    where = _lines(job.requests)
    if job.effect in ONCE and len(job.applied) > 1:
        found = f"applied {len(job.applied)} times"
        yield about(I3, job, "one applied effect at most", found, *_lines(job.applied))
    keys = {arrival.first.key for arrival in job.requests}
    if job.effect == "keyed" and (None in keys or len(keys) > 1):
        found = ", ".join(sorted(key or "none" for key in keys))
        yield about(I3, job, "every request of the job under the same downstream key", found, *where)
    if len({arrival.first.body_hash for arrival in job.requests}) > 1:
        yield about(I3, job, "every request of the job with the same body", "bodies differ", *where)
    if job.effect == "unsafe":
        yield from _unsafe(job)


def _unsafe(job: JobView) -> Iterator[Finding]:
    """A second request may leave only where the one before it certainly came to nothing."""
    for earlier, later in zip(job.requests, job.requests[1:], strict=False):
        cleared = earlier.was_answered_with_an_error or _ruled_out(job, earlier.first.at, later.first.at)
        if not cleared:
            found = f"attempt {later.first.attempt} asked again"
            yield about(I3, job, "one request at most, whose outcome is unknown", found, *earlier.where, *later.where)


def _ruled_out(job: JobView, after: float, before: float) -> bool:
    """Whether somebody who looked had it tried again between two moments, since the effect did not happen."""
    return any(
        event.kind in ("resolved", "verified")
        and (event.data or {}).get("verdict") in ("retry", "did_not_happen")
        and moved_to(event) == State.WAITING
        and after <= event.at <= before
        for event in job.events
    )


def succeeded_happened(view: View, tally: Tally) -> Iterator[Finding]:
    """Find successes without their effect or with another result, and fallbacks beside an effect."""
    for job in view.jobs.values():
        if job.row.state not in (State.SUCCEEDED, State.DEGRADED):
            yield from _no_result(job)
            continue
        superseded = next((event for event in job.events if event.kind == "superseded"), None)
        if superseded is not None:
            tally.judged += 1
            yield from _true_result(view, job, str((superseded.data or {}).get("by")))
            continue
        if job.effect in ("pure", "unknown"):
            continue
        tally.judged += 1
        if job.row.state == State.DEGRADED:
            if job.applied:
                yield about(I4, job, "a fallback instead of the effect", "the effect happened", *_lines(job.applied))
            continue
        times = len(job.applied)
        if times == 0 or (times > 1 and job.effect in ONCE):
            yield about(I4, job, "a success has its one effect", f"applied {times} times", *_lines(job.requests))
        yield from _result(job)


def _true_result(view: View, job: JobView, by: str) -> Iterator[Finding]:
    """A fallback gives way only to what another job brought, which had the effect in this one's place."""
    if job.applied:
        yield about(I4, job, "a fallback instead of the effect", "the effect happened", *_lines(job.applied))
    bringing = view.jobs.get(by)
    results = [each.decision.result for each in (job, bringing) if each is not None and each.decision is not None]
    expected = f"the result of {by}, which succeeded"
    if bringing is None or bringing.row.state != State.SUCCEEDED:
        found = f"that is {'not there' if bringing is None else bringing.row.state}"
        yield about(I4, job, expected, found, "ledger.json jobs")
    elif len({digest(result) for result in results}) != 1:
        yield about(I4, job, expected, f"result {digest(results[0])[:12]}", "ledger.json decisions")


def _no_result(job: JobView) -> Iterator[Finding]:
    """A result without a success is one that somebody brought too late, and that was written all the same."""
    if job.decision is not None and job.decision.result is not None:
        found = f"it is {job.row.state}, with result {digest(job.decision.result)[:12]}"
        yield about(I4, job, "no result without a success", found, "ledger.json decisions")


def _result(job: JobView) -> Iterator[Finding]:
    if job.decision is None:
        return
    if job.decision.error is not None:
        yield about(I4, job, "a success without an error", str(job.decision.error.get("type")), "ledger.json decisions")
    answers = {line.result_hash for arrival in job.requests for line in arrival.lines} - {None}
    result = digest(job.decision.result)
    if result not in answers and not is_by_a_person(job):  # whose word is their own
        known = ", ".join(sorted(str(answer)[:12] for answer in answers)) or "none"
        found = f"result {result[:12]}, answers {known}"
        yield about(I4, job, "the result that the world answered", found, *_lines(job.requests))


def given_up_did_not_happen(view: View, tally: Tally) -> Iterator[Finding]:
    """Find jobs that ended as if nothing had happened, although something did."""
    for job in view.jobs.values():
        if job.row.state not in WITHOUT_EFFECT or job.effect in ("pure", "unknown"):
            continue
        tally.judged += 1
        if job.applied and not was_abandoned(job):
            found = f"it is {job.row.state}, and the effect happened"
            yield about(
                I5, job, "an end without a result means no effect, or doubt on record", found, *_lines(job.applied)
            )


def was_abandoned(job: JobView) -> bool:
    """Whether it is dead by the word of somebody who is named and says why, out of doubt."""
    if job.row.state != State.DEAD or not job.row.maybe_happened:
        return False
    last = next((event.data or {} for event in reversed(job.events) if event.kind == "resolved"), {})
    return last.get("verdict") == "abandon" and bool(last.get("who")) and bool(last.get("reason"))


def is_by_a_person(job: JobView) -> bool:
    """Whether it is a success by somebody's word."""
    return any(event.kind == "resolved" and moved_to(event) == State.SUCCEEDED for event in job.events)


def _lines(arrivals: Sequence[Arrival]) -> tuple[str, ...]:
    return tuple(line for arrival in arrivals for line in arrival.where)

"""I22: no request leaves once its attempt was taken over."""

from __future__ import annotations

from collections.abc import Iterator

from producer.ledger.states import State
from tests.chaos.checker.findings import Finding, Tally
from tests.chaos.checker.view import View, about, event_name

I22 = "I22"


def requests_leave_in_time(view: View, tally: Tally) -> Iterator[Finding]:
    """Find requests of attempts that were over by then.

    Judged where the run says that nobody was held between the last look at a lease and the request: who is, can know no
    better, and that is what downstream keys and look-ups are for.
    """
    if not view.run.requests_in_time:
        return
    for job in view.jobs.values():
        over = {
            event.attempt: event
            for event in job.events
            if event.kind == "rescued" and (event.data or {}).get("from") == State.RUNNING
        }
        for arrival in job.requests:
            tally.judged += 1
            rescue = over.get(arrival.first.attempt)
            if rescue is not None and arrival.first.at > rescue.at:
                late = f"one {arrival.first.at - rescue.at:.3f} s after that"
                expected = f"no request of attempt {rescue.attempt} once it was taken over"
                yield about(I22, job, expected, late, event_name(rescue), *arrival.where)

"""How a Celery task ends: as the attempts of its ring did, so that Flower and events show them as such."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from celery.exceptions import Retry

from producer.errors import JobDegraded, JobFailed, SurefootError
from producer.ledger.states import State
from worker.doubt import Ended


class JobsFailed(SurefootError):
    """Some jobs of one ring ended without a result."""


def as_celery_has_it(ended: Sequence[Ended], *, rung: int) -> str:
    """End the Celery task of a ring that named `rung` jobs.

    Returns:
        A line for Flower, where all went well or nothing was to be done; never a result, which may hold secrets.

    Raises:
        Retry: Where jobs wait, and none failed; the due times are in the ledger, and no message is sent from here.
        JobDegraded: Where a fallback stands in for the one job's result.
        JobFailed: Where the one job ended without a result.
        JobsFailed: Where several were rung, and one at least did.
    """
    if not ended:
        return "nothing to do"  # not Celery's Ignore, which takes its tracer fifty times as long
    if rung == 1:
        return _one(ended[0])
    counts = Counter(job.becomes for job in ended)
    line = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    if set(counts) <= {State.SUCCEEDED}:
        return line
    if set(counts) <= {State.SUCCEEDED, State.WAITING}:
        raise Retry(line, when=max(job.delay or 0.0 for job in ended))  # type: ignore[arg-type]
    raise JobsFailed(line)


def _one(job: Ended) -> str:
    if job.becomes is State.SUCCEEDED:
        return f"{job.becomes} at attempt {job.attempt}"
    error = job.error and {name: job.error[name] for name in ("type", "message")}
    if job.becomes is State.DEGRADED:
        raise JobDegraded(job.job_id, job.why, error=error)  # what stands in is nothing for Celery's log
    failure = JobFailed(job.job_id, job.becomes, error)
    if job.becomes is State.WAITING:
        why, delay = f"waiting for {job.waiting_for}", job.delay
        raise Retry(why, exc=failure, when=delay)  # type: ignore[arg-type]  # a float is a Real
    raise failure

"""I16: once all is done and all were told to end, nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.checker.findings import Finding, Tally
from tests.chaos.checker.view import KILLS, View, about

I16 = "I16"
# Celery's own; who is held, the limits of what runs, and breakers. They say nothing of a job; most end by themselves.
EXPECTED_KEYS = (
    "_kombu.binding",
    "unacked",
    "surefoot:held:",
    "surefoot:held-line:",
    "surefoot:holds",
    "surefoot:limit:",
    "surefoot:breaker",
    "surefoot:retries:",
)
# A worker's word to itself: the last one of a worker that was killed is gone within minutes.
CANARIES = "canary."


def no_residue(view: View, tally: Tally) -> Iterator[Finding]:
    """Find leases, rings, connections and processes that outlived the run."""
    evidence = view.evidence
    redis, left, baseline = evidence.redis, evidence.processes, view.run.baseline
    tally.judged = 1
    tally.figures |= {
        "unacked": redis.unacked,
        "Postgres connections": left.postgres_connections,
        "Redis clients": left.redis_clients,
        "keys": sum(map(len, redis.keys.values())),
    }
    for job in view.jobs.values():
        if job.row.lease_owner is not None or job.row.lease_expires_at is not None:
            yield about(I16, job, "no lease", f"leased by {job.row.lease_owner}")
    yield from _redis(view)
    for process in left.processes:
        found = f"{process.name}, pid {process.pid}: {process.command}"
        yield _left("no process of the run", found, "processes.json")
    if left.postgres_connections > baseline.postgres_connections:
        expected = f"{baseline.postgres_connections} connections to Postgres, as before"
        yield _left(expected, str(left.postgres_connections), "processes.json")
    if left.redis_clients > baseline.redis_clients:
        expected = f"{baseline.redis_clients} clients of Redis, as before"
        yield _left(expected, str(left.redis_clients), "processes.json")


def _redis(view: View) -> Iterator[Finding]:
    redis = view.evidence.redis
    for queue, length in redis.queues.items():
        if length > redis.over.get(queue, 0) and not queue.startswith(CANARIES):
            yield _left("no ring but for jobs that are over", f"{length} in {queue}", "redis.json")
    # What a killed worker had not acknowledged, kombu hands out again after an hour: rings, for jobs that have ended.
    killed = any(fault.fault in KILLS for fault in view.evidence.faults)
    if redis.unacked and not killed:
        yield _left("nothing unacknowledged, since nobody was killed", f"{redis.unacked} rings", "redis.json")
    for kind, names in redis.keys.items():
        for name in names:
            if not name.startswith(EXPECTED_KEYS):
                yield _left("no key that nobody knows", f"{kind} {name}", "redis.json")


def _left(expected: str, found: str, where: str) -> Finding:
    return Finding(invariant=I16, expected=expected, found=found, rests_on=(where,))

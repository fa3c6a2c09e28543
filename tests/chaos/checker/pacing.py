"""I12: retries keep their delays. I15: what a dead worker left is taken up in time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from producer.ledger.states import AT_REST
from tests.chaos.checker.findings import Finding, Tally
from tests.chaos.checker.moves import moved_to
from tests.chaos.checker.view import STOPS, JobView, View, about, event_name
from tests.chaos.evidence import Fault
from tests.chaos.ledger_rows import EventRow

I12, I15 = "I12", "I15"
PARKS = frozenset({"attempt_failed", "held", "returned"})
GIVEN_EARLY = frozenset({"concurrency", "conversation", "breaker"})
# A day and a quarter: the longest that a server may ask for, and how far such waits are spread.
LONGEST_HOLD_SECONDS = 86_400.0 * 1.25
# A delay counts from its statement's begin; that may wait for a row this long (the sessions' lock_timeout).
STATEMENT_SECONDS = 2.0
GRACE_SECONDS = 10.0
SERVERS = ("postgres", "redis")
# Links through which nothing comes: whoever is behind them is away, too.
HOLES = frozenset({"postgres_link_hole", "redis_link_hole"})
# What befalls a server that answers meanwhile, if late or not everybody.
ANSWERING = frozenset(
    {"postgres_slow", "postgres_locks", "postgres_deadlock", "postgres_terminate", "postgres_full", "redis_flush"}
)


def retries_wait(view: View, tally: Tally) -> Iterator[Finding]:
    """Find delays outside their bounds, and attempts that came before them. Reports requests for each job."""
    asking = requests = 0
    for job in view.jobs.values():
        asking += bool(job.requests)
        requests += len(job.requests)
        for event, following in zip(job.events, [*job.events[1:], None], strict=False):
            if event.kind in PARKS:
                tally.judged += 1
                yield from _delay(job, event)
                yield from _kept(job, event, following)
    tally.figures["requests a job"] = round(requests / asking, 3) if asking else 0.0


def _delay(job: JobView, event: EventRow) -> Iterator[Finding]:
    delay = (event.data or {}).get("delay")
    longest = {"held": LONGEST_HOLD_SECONDS, "returned": 0.0}.get(event.kind, math.inf)
    if event.kind == "attempt_failed" and job.facts is not None:
        longest = job.facts.retry_backoff_max
    number = isinstance(delay, int | float) and not isinstance(delay, bool)
    if not number or not 0 <= float(delay or 0) <= longest:
        yield about(I12, job, f"a delay of 0 to {longest} s", f"{delay} s", event_name(event))


def _kept(job: JobView, event: EventRow, following: EventRow | None) -> Iterator[Finding]:
    data = event.data or {}
    delay = data.get("delay")
    if following is None or following.kind != "claimed" or not isinstance(delay, int | float):
        return
    # A place that got free, a turn, or a breaker that closed, is given early; a request to cancel is answered at once.
    if data.get("waiting_for") in GIVEN_EARLY or job.row.cancel_requested_at is not None:
        return
    waited = following.at - event.at
    if waited < delay - STATEMENT_SECONDS:
        found = f"claimed after {waited:.3f} s"
        yield about(I12, job, f"no attempt before {delay} s", found, event_name(event), event_name(following))


def recovery(view: View, tally: Tally) -> Iterator[Finding]:
    """Find out how long the jobs of killed and stopped workers waited for another; the 99th percentile has a limit."""
    limit = view.run.lease_seconds + view.run.sweep_seconds + GRACE_SECONDS
    found = sorted(recoveries(view), key=lambda each: each.seconds)
    tally.judged = len(found)
    tally.figures["limit s"] = limit
    if not found:
        return
    seconds = [each.seconds for each in found]
    p99 = percentile(seconds, 99)
    tally.figures |= {
        "p50 s": round(percentile(seconds, 50), 3),
        "p99 s": round(p99, 3),
        "max s": round(seconds[-1], 3),
    }
    if p99 > limit:
        worst = found[-1]
        found_here = f"p99 {p99:.3f} s; worst here"
        yield about(I15, worst.job, f"p99 of recoveries within {limit} s", found_here, event_name(worst.event))


@dataclass(frozen=True, slots=True)
class Recovery:
    """A job that was taken over from a silent worker; `seconds` until somebody had it, or it ended."""

    seconds: float
    job: JobView
    event: EventRow


def recoveries(view: View) -> Iterator[Recovery]:
    """Yield every rescue that a fault has caused.

    It counts from the fault to the next claim, or to the rescue where that was the end, but for the time in which
    nobody could take it up: a server was away, or whoever was hit stood still with what it held and came back first.
    Jobs of an action of which workers have different versions are left out: how long they wait is a matter of whether
    any worker has theirs.
    """
    faults = list(view.kills_and_stops())
    versions: dict[str, set[Any]] = {}
    for job in view.jobs.values():
        versions.setdefault(job.row.action, set()).add(job.row.columns.get("action_version"))
    for job in view.jobs.values():
        if len(versions[job.row.action]) > 1:
            continue
        for index, event in enumerate(job.events):
            if event.kind == "rescued" and (cause := _cause(job, index, faults)) is not None:
                taken_up = _taken_up(job, index)
                if taken_up is not None:
                    away = _away(view.evidence.faults, cause.target, event.at)
                    yield Recovery(taken_up - cause.at - _within(away, cause.at, taken_up), job, event)


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Return the smallest of the ordered values that at least so many percent do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _cause(job: JobView, index: int, faults: Sequence[Fault]) -> Fault | None:
    """Return the fault that silenced the owner: its process's last before the rescue, or else anybody's first."""
    rescued = job.events[index]
    claims = [event.at for event in job.events[:index] if event.kind == "claimed"]
    silent = str((rescued.data or {}).get("silent"))
    meanwhile = [each for each in faults if claims and claims[-1] <= each.at <= rescued.at]
    # A worker is known to the ledger as host:pid, to the nemesis by its name and its pid.
    own = [each for each in meanwhile if each.target == silent or silent.rpartition(":")[2] == str(each.pid)]
    return own[-1] if own else next(iter(meanwhile), None)


def _away(faults: Sequence[Fault], hit: str, rescued: float) -> Iterator[tuple[float, float]]:
    """Yield from when until when a server was away, or whoever was hit stood still; these may overlap."""
    begun: dict[tuple[str, str], float] = {}
    for fault in faults:
        is_away = (fault.target in SERVERS and fault.fault not in ANSWERING) or fault.fault in HOLES
        stands_still = fault.target == hit and fault.fault in STOPS
        if not is_away and not stands_still:
            continue
        if fault.phase == "begin":
            begun[fault.fault, fault.target] = fault.at
        elif (since := begun.pop((fault.fault, fault.target), None)) is not None and (is_away or fault.at < rescued):
            yield since, fault.at


def _within(spans: Iterable[tuple[float, float]], since: float, until: float) -> float:
    """Return how much of the time between two moments the spans cover together."""
    covered, reached = 0.0, since
    for begin, end in sorted(spans):
        covered += max(0.0, min(end, until) - max(begin, reached))
        reached = max(reached, min(end, until))
    return covered


def _taken_up(job: JobView, index: int) -> float | None:
    rescued = job.events[index]
    if moved_to(rescued) in AT_REST:
        return rescued.at
    return next((event.at for event in job.events[index + 1 :] if moved_to(event) is not None), None)

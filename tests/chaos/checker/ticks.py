"""Ticks of schedules: they ask for jobs as processes do, each for one, and nobody writes down that they asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from tests.chaos.checker.findings import Finding
from tests.chaos.checker.view import JobView, View, about
from tests.chaos.evidence import ScheduleFacts

PREFIX = "schedule:"


def tick_of(view: View, job: JobView) -> tuple[ScheduleFacts, float] | None:
    """Return the schedule and the tick that a job's key names, in UTC seconds; None where it names none of the run."""
    for schedule in view.run.schedules:
        name, spelled = f"{PREFIX}{schedule.name}:", job.row.idempotency_key
        if spelled.startswith(name):
            try:
                return schedule, datetime.fromisoformat(spelled.removeprefix(name)).timestamp()
            except ValueError:
                return None
    return None


def is_due(view: View, job: JobView, *, invariant: str) -> Iterator[Finding]:
    """Find what is wrong with a job that a tick asked for: another action, no tick at all, or one too early."""
    found = tick_of(view, job)
    if found is None:
        return
    schedule, tick = found
    if job.row.action != schedule.action:
        yield about(invariant, job, f"a tick of {schedule.name} asks for {schedule.action}", f"for {job.row.action}")
    if tick % schedule.every:
        yield about(invariant, job, f"a tick every {schedule.every} s", f"one at {tick}")
    if tick <= schedule.since or job.row.accepted_at < tick:
        expected = f"a tick after {schedule.since}, and its job no earlier"
        yield about(invariant, job, expected, f"tick {tick}, accepted at {job.row.accepted_at}")


def ticks_have_jobs(view: View, *, invariant: str) -> Iterator[Finding]:
    """Find ticks that were due and have no job, or more than one."""
    jobs: dict[tuple[str, float], int] = {}
    for job in view.jobs.values():
        found = tick_of(view, job)
        if found is not None:
            jobs[found[0].name, found[1]] = jobs.get((found[0].name, found[1]), 0) + 1
    for schedule in view.run.schedules:
        for tick in due_ticks(schedule):
            made = jobs.get((schedule.name, tick), 0)
            if made != 1:
                key = f"{PREFIX}{schedule.name} at {tick}"
                yield Finding(invariant=invariant, expected="one job for a tick that was due", found=f"{made}", key=key)


def due_ticks(schedule: ScheduleFacts) -> Iterator[float]:
    """Yield the ticks after `since`, up to `until`."""
    tick = (schedule.since // schedule.every + 1) * schedule.every
    while tick <= schedule.until:
        yield tick
        tick += schedule.every

"""Scripts about a job that is asked for by itself: what happens to it that the matrix of deaths alone does not show."""

from __future__ import annotations

import time

from sqlalchemy import text

from producer.ledger.states import State
from tests.chaos.lane import CRASH_CAP
from tests.chaos.patience import NotReached, until
from tests.chaos.processes import Worker, wait_ready
from tests.chaos.scenarios.stage import Stage

# Enough for a busy machine to bring a ring to a worker before it is late.
DEADLINE_SECONDS = 4.0
# What arrives late does so after a look that did not find it, but before it could be trusted.
LATE_SECONDS = 1.5
# A job that is due has been rung and claimed by then, where anybody would.
RUNG_SECONDS = 1
# How a job ends that is cancelled at a point of its way, and its worker dies there.
CANCELLED: dict[tuple[str, str], tuple[State, ...]] = {
    ("claim.committed", "sigkill"): (State.CANCELLED,),
    ("effect.held", "sigkill"): (State.IN_DOUBT,),
    ("effect.held", "redis_kill"): (State.SUCCEEDED,),
    ("settle.committed", "sigkill"): (State.SUCCEEDED,),
    ("settle.committed", "terminate_backend"): (State.SUCCEEDED,),
    ("retry.waiting", "sigkill"): (State.CANCELLED,),
    ("retry.waiting", "terminate_backend"): (State.CANCELLED,),
}


def alone(stage: Stage) -> None:
    """A job whose worker dies, by a clock that is wrong."""
    stage.arm(stage.point)
    jobs = stage.ask("chaos.keyed", {"wait": False})
    stage.strike(stage.there(stage.point, jobs))
    stage.expect(jobs, State.SUCCEEDED)


def cancel(stage: Stage) -> None:
    """A job is cancelled where it just is, and whoever has it dies there."""
    waits = stage.point == "retry.waiting"
    if not waits:
        stage.arm(stage.point)
    jobs = stage.ask("chaos.keyed", {"wait": waits})
    if waits:
        stage.until(lambda: stage.job(jobs[0]).state == State.WAITING, "the wait")
        victim = stage.worker_that_waits(jobs[0])
    else:
        victim = stage.there(stage.point, jobs)
    stage.cancel(jobs[0])
    stage.strike(victim)
    if waits:  # whoever did not heed that would begin when the retry is due
        stage.until(lambda: _has_passed(stage, f"due_at + interval '{RUNG_SECONDS} s'", jobs[0]), "the retry's moment")
    stage.expect(jobs, *CANCELLED[stage.point, stage.piece.death])


def deadline(stage: Stage) -> None:
    """A job's deadline passes while a worker is about to claim it."""
    stage.arm(stage.point)
    jobs = stage.ask("chaos.keyed", {"wait": False}, deadline=DEADLINE_SECONDS)
    victim = stage.there(stage.point, jobs)
    stage.until(lambda: _has_passed(stage, "deadline_at", jobs[0]), "the deadline")
    stage.strike(victim)
    stage.expect(jobs, State.EXPIRED)


def _has_passed(stage: Stage, moment: str, job_id: str) -> bool:
    passed = text(f"SELECT {moment} < clock_timestamp() FROM jobs WHERE id = :job")
    with stage.lane.engine.connect() as connection:
        return bool(connection.execute(passed, {"job": job_id}).scalar())


def hold(stage: Stage) -> None:
    """The other side asks for patience, and whoever has written that down dies."""
    stage.arm(stage.point)
    jobs = stage.ask("chaos.answered", {"answers": [429]})
    stage.strike(stage.there(stage.point, jobs))
    stage.expect(jobs, State.SUCCEEDED)


def poison(stage: Stage) -> None:
    """A job takes down each worker that has it, one after the other, until it is left alone."""
    stage.arm(stage.point)
    jobs = stage.ask("chaos.pure", {"wait": False})
    for crash in range(1, CRASH_CAP + 1):
        parked = stage.lane.switchboard.until_parked(lambda each: jobs[0] in (each.jobs or ()), seconds=30.0)
        victim = stage.lane.worker_of(parked.line.pid)
        if crash == CRASH_CAP:
            stage.strike(victim)
        else:
            _take_down(stage, victim)
    stage.expect(jobs, State.DEAD)


def _take_down(stage: Stage, victim: Worker) -> None:
    """Kill a worker, once the one that replaces it is there to take part: it comes to the point, too."""
    lane = stage.lane
    lane.replace(len(lane.workers) + 1)
    wait_ready(lane.workers[-1])
    lane.connected(lane.workers[-1])
    lane.switchboard.arm(stage.point, [lane.workers[-1].pid])
    scene = stage.scene()
    scene.note("sigkill", "begin", victim)
    victim.end()
    scene.note("sigkill", "end", victim)
    lane.workers.remove(victim)


def late_arrival(stage: Stage) -> None:
    """A request is on its way for longer than its worker lives: who looks whether it happened does not find it yet."""
    stage.arm(stage.point)
    jobs = stage.ask("chaos.verifiable", {"wait": False})
    victim = stage.there(stage.point)
    stage.strike(victim, lets_go=False)
    stage.until_events(jobs[0], "verified")
    began = time.monotonic()
    try:  # whoever believes that one look asks anew at once
        until(lambda: stage.job(jobs[0]).state != State.IN_DOUBT, seconds=LATE_SECONDS, what="a belief")
        until(stage.is_at_rest, seconds=max(0.1, LATE_SECONDS + began - time.monotonic()), what="the second effect")
    except NotReached:
        pass
    stage.lane.world.release(stage.piece.name)
    stage.expect(jobs, State.SUCCEEDED)

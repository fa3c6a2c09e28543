"""One scenario being played in a lane: what its script can do, and how it ends."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text

from producer.ledger.states import AT_REST, CLOSED, State, in_sql
from tests.chaos.deaths import Scene
from tests.chaos.patience import until
from tests.chaos.processes import Member, Worker
from tests.chaos.scenarios.scenario import Scenario
from tests.chaos.staged import REACH_SECONDS, Staged

# Points at which the effect server keeps a request, and before or after the effect.
HELD = {"request.arrived": "arrived", "effect.held": "applied"}
JOBS = text("SELECT id, action, state, fence, lease_owner, waiting_for FROM jobs WHERE tenant = :run ORDER BY id")
ALIVE = text(f"""
SELECT count(*) FROM jobs WHERE tenant = :run AND state NOT IN ({in_sql(CLOSED)})
  AND NOT (state = '{State.IN_DOUBT}' AND coalesce(looks_left, 0) = 0)
""")


@dataclass(slots=True)
class Stage(Staged):
    """A scenario being played. A script asks, has somebody die, says what should become of the jobs, and drains.

    Attributes:
        script: What happens in it.
        expected: For jobs that the checker asks no more of than of any: in which states they may end.
    """

    script: Callable[[Stage], None] = lambda _: None
    expected: dict[str, AbstractSet[State]] = field(default_factory=dict)
    calls: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def point(self) -> str:
        """Where whoever dies is."""
        assert isinstance(self.piece, Scenario)
        return self.piece.point

    def run(self) -> None:
        self.script(self)
        self.drain()

    # ---- asking ------------------------------------------------------------------------------------------------

    def ask(self, action: str, /, *requests: dict[str, Any], deadline: float | None = None) -> list[str]:
        """Ask for jobs with these params, several as a batch; return their ids."""
        asked = []
        for request in requests:
            call, params = next(self.calls), {"run": self.piece.name, **request}
            key = f"{self.piece.name}/{call}"
            asked.append({"call": call, "action": action, "key": key, "params": params, "deadline": deadline})
        job_ids: list[str] = self._order("ask", folder=str(self.folder), within=False, requests=asked)["job_ids"]
        return job_ids

    def cancel(self, job_id: str) -> None:
        """Ask for a job to be cancelled."""
        self._order("cancel", folder=str(self.folder), call=next(self.calls), job=job_id)

    def approve(self, job_id: str) -> None:
        """Have somebody approve a job that waits for people; nobody does where none is asked."""
        self._order("approve", job=job_id)

    def approver_there(self, point: str, job_id: str) -> Member:
        """Have somebody approve a job, and wait until that process is at a point."""
        asker = self.lane.asker
        self.lane.world.plan(self.piece.name, hold=None, drop=False)
        self.lane.switchboard.arm(point, [asker.pid])
        asker.order({"do": "approve", "tenant": self.piece.name, "job": job_id})
        self.lane.switchboard.until_parked(lambda each: each.line.root == asker.pid, seconds=REACH_SECONDS)
        return asker

    def approve_again(self, job_id: str) -> None:
        """Do as a person does that was not answered; where the process lives, it answers after all."""
        if self.victim is self.lane.asker:
            self.lane.asker.answer(REACH_SECONDS)
            return
        self.lane.connected(self.lane.asker)
        self.approve(job_id)

    def schedule(self, name: str, action: str, params: dict[str, Any], *, every: int) -> float:
        """Add a schedule; return its first tick."""
        params = {"run": self.piece.name, **params}
        return float(self._order("schedule", name=name, action=action, params=params, every=every)["next_tick"])

    def pause(self, name: str) -> None:
        """Have a schedule make no more jobs."""
        self._order("pause", name=name)

    def _order(self, do: str, **order: Any) -> dict[str, Any]:
        asker = self.lane.asker
        asker.order({"do": do, "tenant": self.piece.name, **order})
        return asker.answer(REACH_SECONDS)

    # ---- the point, and the death ------------------------------------------------------------------------------

    def arm(self, point: str) -> None:
        """Have whoever comes to a point be kept there: a process, or the run's next request at the effect server."""
        if point in HELD:
            self.lane.world.plan(self.piece.name, hold=HELD[point], drop=False)
        else:
            self.lane.world.plan(self.piece.name, hold=None, drop=False)
            self.lane.switchboard.arm(point, self.lane.roots)

    def there(self, point: str, job_ids: Sequence[str] = ()) -> Worker:
        """Wait until somebody is at a point, with one of these jobs where they are named; the others are let go."""
        lane = self.lane
        if point in HELD:
            return lane.worker_of(lane.world.held(self.piece.name, REACH_SECONDS))
        parked = lane.switchboard.until_parked(
            lambda each: each.jobs is None or not job_ids or bool({*each.jobs} & {*job_ids}), seconds=REACH_SECONDS
        )
        there = lane.worker_of(parked.line.pid)
        lane.switchboard.arm(None, [root for root in lane.roots if root != there.pid])
        return there

    def scene(self, *, lets_go: bool = True) -> Scene:
        """Return the scene of a death. Where it does not let go, what the effect server holds stays there."""
        leased = {job.id: job.fence for job in self.jobs() if job.lease_owner is not None}

        def let_go() -> None:
            if lets_go:
                self.lane.world.release(self.piece.name)
            living = [member for member in self.lane.members if member.lives]
            stopped = any(member.stopped for member in living)
            self.lane.switchboard.arm(None, [member.pid for member in living], answered=not stopped)

        def taken_over() -> bool:
            return self.is_at_rest() or all(job.fence != leased.get(job.id) for job in self.jobs())

        return Scene(self.lane, self.folder, self.piece.row, let_go, taken_over)

    def strike(self, victim: Member, *, lets_go: bool = True) -> None:
        """Have somebody die."""
        self.die(victim, self.scene(lets_go=lets_go))

    # ---- looking -----------------------------------------------------------------------------------------------

    def jobs(self) -> Sequence[Any]:
        """Return the jobs' rows."""
        with self.lane.engine.connect() as connection:
            return connection.execute(JOBS, {"run": self.piece.name}).all()

    def job(self, job_id: str) -> Any:
        """Return one job's row."""
        return next(job for job in self.jobs() if str(job.id) == job_id)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for something; raises `NotReached` if it does not come."""
        return until(condition, seconds=REACH_SECONDS, what=what)

    def until_events(self, job_id: str, kind: str) -> None:
        """Wait until a job has an event of this kind."""
        count = text("SELECT count(*) FROM events WHERE job_id = :job AND kind = :kind")

        def found() -> bool:
            with self.lane.engine.connect() as connection:
                return bool(connection.execute(count, {"job": job_id, "kind": kind}).scalar())

        self.until(found, f"an event {kind}")

    def until_waiting(self, job_ids: Sequence[str], waiting_for: str) -> None:
        """Wait until each of these jobs waits for something, or has come to rest."""

        def waits(job_id: str) -> bool:
            job = self.job(job_id)
            return job.waiting_for == waiting_for or State(job.state) in AT_REST

        self.until(lambda: all(map(waits, job_ids)), f"jobs that wait for {waiting_for}")

    def worker_that_waits(self, job_id: str) -> Worker:
        """Return the worker that has put a job off and would ring for it."""
        last = text("SELECT worker FROM events WHERE job_id = :job AND worker IS NOT NULL ORDER BY seq DESC LIMIT 1")
        with self.lane.engine.connect() as connection:
            worker = connection.execute(last, {"job": job_id}).scalar_one()
        return self.lane.worker_of(int(worker.rpartition(":")[2]))

    # ---- the end -----------------------------------------------------------------------------------------------

    def expect(self, job_ids: Sequence[str], *states: State) -> None:
        """Say in which states these jobs may end."""
        for job_id in job_ids:
            self.expected[job_id] = frozenset(states)

    def is_at_rest(self) -> bool:
        with self.lane.engine.connect() as connection:
            return connection.execute(ALIVE, {"run": self.piece.name}).scalar() == 0

    def wrong_ends(self) -> Iterator[str]:
        states = {str(job.id): State(job.state) for job in self.jobs()}
        for job_id, expected in self.expected.items():
            if states.get(job_id) not in expected:
                yield f"{job_id} is {states.get(job_id)}, not {' or '.join(sorted(expected))}"

    @property
    def goes_on(self) -> bool:
        return True

    @property
    def state(self) -> str | None:
        return State.IN_DOUBT if any(job.state == State.IN_DOUBT for job in self.jobs()) else None


Script = Callable[[Stage], None]

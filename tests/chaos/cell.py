"""One cell of the crash matrix: one job, of one effect class, and a death at one point of its way."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import text

from producer.ledger.states import State
from tests.chaos.deaths import OF_GROUPS, Death, Scene
from tests.chaos.evidence import Effect
from tests.chaos.expectations import at_rest, ends
from tests.chaos.lane import Crew
from tests.chaos.patience import NotReached, until
from tests.chaos.points import Point
from tests.chaos.processes import Asker, Member, Worker
from tests.chaos.staged import REACH_SECONDS, Staged
from tests.chaos.switchboard import Parked

RENEWAL_HELD = "renewal_held"
JOB = text("SELECT id, state, fence, lease_owner FROM jobs WHERE tenant = :run ORDER BY id")


@dataclass(frozen=True, slots=True)
class Cell:
    """A point, an effect class and a death.

    Attributes:
        mutant: The defect that the workers have, where the matrix itself is tested.
        tries: 2 where the first one said nothing.
    """

    point: Point
    effect: Effect
    death: Death
    mutant: str | None = None
    tries: int = 1

    @property
    def name(self) -> str:
        """Also the name of its evidence's folder, its tenant, and its part of the effect server."""
        name = f"{self.point.name}-{self.effect}-{self.death}"
        again = "" if self.tries == 1 else f"-{self.tries}"
        return f"{name}{again}" if self.mutant is None else f"{self.mutant}-{name}{again}"

    @property
    def crew(self) -> Crew:
        """Who plays it. Where a whole group or a part of it dies, there is more than one process in it."""
        return Crew(self.death in OF_GROUPS, self.mutant)

    @property
    def workers(self) -> int:
        """How many play it: one is left whoever dies, so that no recovery waits for the start of a process."""
        return 3 if self.point.dies == "rescuer" else 2

    @property
    def row(self) -> str:
        """The line of a table that it belongs to."""
        return self.point.name

    @property
    def action(self) -> str:
        return f"chaos.{self.effect}"

    @property
    def actions(self) -> tuple[str, ...]:
        """What its job asks for."""
        return (self.action,)

    @property
    def must_judge(self) -> tuple[str, ...]:
        """Invariants that must have had something to judge: its job, its events, its fences."""
        return ("I1", "I2", "I7", "I8")


@dataclass(slots=True)
class Play(Staged):
    """One cell being played in a lane.

    Attributes:
        cell: The piece.
        job_id: Known once it is accepted.
        calls: How often it was asked for.
    """

    job_id: str | None = None
    calls: int = 0

    @property
    def cell(self) -> Cell:
        assert isinstance(self.piece, Cell)
        return self.piece

    def run(self) -> None:
        """Ask, have somebody die, and wait until nothing moves any more.

        Raises:
            NotReached: If the death could not be brought about; the cell says nothing.
        """
        point, lane = self.cell.point, self.lane
        lane.world.plan(self.cell.name, hold=point.hold, drop=point.drops)
        victim: Member = self._kill_the_asker_there() if point.dies == "asker" else self._kill_a_worker_there()
        self._ask_again_if_unanswered()
        self.drain(ends=victim if point.name == "stop.draining" else None)

    # ---- up to the death ---------------------------------------------------------------------------------------

    def _kill_the_asker_there(self) -> Member:
        victim = self.lane.asker
        self.lane.switchboard.arm(self.cell.point.name, [victim.pid])
        self._ask(victim)
        self.lane.switchboard.until_parked(lambda parked: parked.line.root == victim.pid, seconds=REACH_SECONDS)
        self.die(victim, self._scene(victim))
        return victim

    def _kill_a_worker_there(self) -> Member:
        point, lane = self.cell.point, self.lane
        armed = point.name if point.parks and point.dies == "worker" else None
        lane.switchboard.arm(armed, lane.roots)
        self._ask(lane.asker)
        self.job_id = self._answer(lane.asker)
        victim = self._there()
        if point.dies == "rescuer":
            victim = self._rescuer_of(victim)
        elif point.name == "stop.draining":
            victim.process.send_signal(signal.SIGTERM)
            until(partial(victim.said, "worker.stopping"), seconds=REACH_SECONDS, what="the stop")
        scene = self._scene(victim)
        self.die(victim, scene)
        if point.holds_renewals:
            scene.note(RENEWAL_HELD, "end", victim)
        return victim

    def _there(self) -> Worker:
        """Wait until the point is reached, and return whose worker is there; the others are not armed any more."""
        point, lane = self.cell.point, self.lane
        if point.waits and not point.parks:
            return self._worker_that_waits()
        if point.hold is not None:
            there = lane.worker_of(lane.world.held(self.cell.name, REACH_SECONDS))
        if point.hold is None or (point.parks and point.dies == "worker"):
            parked = lane.switchboard.until_parked(self._is_ours, seconds=REACH_SECONDS)
            there = lane.worker_of(parked.line.pid)
            if point.holds_renewals:  # since before the intent, maybe; it may lose its lease before it dies
                self._scene(there).note(RENEWAL_HELD, "begin", there, at=parked.at)
        lane.switchboard.arm(None, [root for root in lane.roots if root != there.pid])
        return there

    def _worker_that_waits(self) -> Worker:
        until(lambda: self.job().state == State.WAITING, seconds=REACH_SECONDS, what="the wait")
        with self.lane.engine.connect() as connection:
            last = "SELECT worker FROM events WHERE job_id = :job AND worker IS NOT NULL ORDER BY seq DESC LIMIT 1"
            worker = connection.execute(text(last), {"job": self.job_id}).scalar_one()
        return self.lane.worker_of(int(worker.rpartition(":")[2]))

    def _rescuer_of(self, first: Worker) -> Worker:
        """Kill the worker that has the job, and return the one that is about to take it over."""
        lane = self.lane
        others = [worker.pid for worker in lane.workers if worker is not first]
        lane.switchboard.arm(self.cell.point.name, others)
        scene = self._scene(first)
        scene.note("group_kill", "begin", first)
        first.end()
        scene.note("group_kill", "end", first)
        parked = lane.switchboard.until_parked(lambda parked: parked.line.root in others, seconds=REACH_SECONDS)
        rescuer = lane.worker_of(parked.line.pid)
        lane.switchboard.arm(None, [root for root in others if root != rescuer.pid])
        return rescuer

    def _is_ours(self, parked: Parked) -> bool:
        return parked.jobs is None or self.job_id in parked.jobs

    # ---- the death, and after it -------------------------------------------------------------------------------

    def _scene(self, victim: Member) -> Scene:
        before = self.job()
        leased = before is not None and before.lease_owner is not None

        def let_go() -> None:
            self.lane.world.release(self.cell.name)
            roots = [member.pid for member in self.lane.members if member.lives]
            self.lane.switchboard.arm(None, roots, answered=not victim.stopped)

        def taken_over() -> bool:
            return not leased or isinstance(victim, Asker) or self.job().fence != before.fence or self.is_at_rest()

        return Scene(self.lane, self.folder, self.cell.point.name, let_go, taken_over)

    def _ask(self, asker: Asker) -> None:
        self.calls += 1
        request = {
            "call": self.calls,
            "action": self.cell.action,
            "key": self.cell.name,
            "params": {"run": self.cell.name, "wait": self.cell.point.waits},
        }
        asker.order(
            {
                "do": "ask",
                "folder": str(self.folder),
                "tenant": self.cell.name,
                "within": self.cell.point.asks_within,
                "requests": [request],
            }
        )

    def _answer(self, asker: Asker) -> str | None:
        job_ids: list[str | None] = asker.answer(REACH_SECONDS)["job_ids"]
        return job_ids[0]

    def _ask_again_if_unanswered(self) -> None:
        """Do as a service does that was not answered: ask anew, with the same key."""
        lane = self.lane
        while self.job_id is None:
            if lane.asker.lives and self.calls == 1 and self.cell.death not in ("sigkill", "group_kill"):
                self.job_id = self._answer(lane.asker)
            if self.job_id is None:
                lane.replace()
                lane.connected(lane.asker)
                self._ask(lane.asker)
                self.job_id = self._answer(lane.asker)
            if self.calls > 3:
                raise NotReached("asked three times, and not answered")

    def job(self) -> Any:
        """Return the job's row; None before it is accepted."""
        with self.lane.engine.connect() as connection:
            return connection.execute(JOB, {"run": self.cell.name}).first()

    def is_at_rest(self) -> bool:
        job = self.job()
        return job is not None and State(job.state) in at_rest(self.cell.effect)

    def wrong_ends(self) -> Iterator[str]:
        expected = ends(self.cell)
        if self.state not in expected:
            yield f"it is {self.state}, not {' or '.join(sorted(expected))}"

    @property
    def goes_on(self) -> bool:
        return self.cell.point.goes_on

    @property
    def state(self) -> str | None:
        job = self.job()
        return None if job is None else State(job.state)

"""What every play in a lane has in common: somebody dies, and then it is waited for until nothing moves."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Protocol

from sqlalchemy import text

from tests.chaos.deaths import Death, Scene, die
from tests.chaos.evidence import ScheduleFacts
from tests.chaos.lane import Crew, Lane
from tests.chaos.patience import NotReached, until
from tests.chaos.processes import Member

REACH_SECONDS = 40.0
# A ring that got lost is repeated after five seconds; a worker that must start first takes a few more.
DRAIN_SECONDS = 30.0
# A defect may keep a job from ever coming to rest, or for longer than the checker allows.
MUTANT_DRAIN_SECONDS = 20.0
LAST_MOVE = text("""
SELECT max(at) FROM events e JOIN jobs j ON j.id = e.job_id WHERE j.tenant = :run AND e.kind <> 'late_result'
""")


class Piece(Protocol):
    """What can be played: a cell of the matrix, or a scenario.

    Attributes:
        name: Also of its evidence's folder, its tenant, and its part of the effect server.
        row: The line of a table that it belongs to.
        actions: What its jobs may ask for.
        must_judge: Invariants that must have had something to judge.
    """

    @property
    def name(self) -> str: ...
    @property
    def row(self) -> str: ...
    @property
    def death(self) -> Death: ...
    @property
    def mutant(self) -> str | None: ...
    @property
    def tries(self) -> int: ...
    @property
    def crew(self) -> Crew: ...
    @property
    def workers(self) -> int: ...
    @property
    def actions(self) -> tuple[str, ...]: ...
    @property
    def must_judge(self) -> tuple[str, ...]: ...


class WorkerEnded(Exception):
    """A worker is gone that nobody has killed."""


@dataclass(slots=True)
class Staged:
    """Something being played in a lane.

    Attributes:
        piece: What is played.
        folder: For its evidence.
        began: Before anything happened in it, UTC seconds; as `died_at`.
        died_at: When the last death began.
        unrest: What still moved when the evidence was taken.
        victim: Who died last.
        schedules: Whose ticks asked for jobs.
    """

    piece: Piece
    lane: Lane
    folder: Path
    began: float
    died_at: float = 0.0
    unrest: str | None = None
    victim: Member | None = None
    schedules: tuple[ScheduleFacts, ...] = ()

    @abstractmethod
    def run(self) -> None:
        """Play it, up to where nothing moves any more.

        Raises:
            NotReached: If the death could not be brought about; it says nothing.
        """

    @abstractmethod
    def is_at_rest(self) -> bool:
        """Whether nobody but a person moves its jobs any more."""

    @abstractmethod
    def wrong_ends(self) -> Iterator[str]:
        """Yield what its jobs have become and should not, beyond what the checker asks of every job."""

    @property
    @abstractmethod
    def goes_on(self) -> bool:
        """Whether a request may leave although its attempt is over: whoever parks there is done with the job."""

    @property
    @abstractmethod
    def state(self) -> str | None:
        """The state in which its job ended; of several, whether one is in doubt; None where there is nothing to say."""

    def recovery(self) -> float | None:
        """Return the seconds from the last death until the jobs came to rest; None where they have not."""
        if not self.is_at_rest():
            return None
        with self.lane.engine.connect() as connection:
            moved: datetime | None = connection.execute(LAST_MOVE, {"run": self.piece.name}).scalar()
        return None if moved is None else max(0.0, moved.timestamp() - self.died_at)

    def die(self, victim: Member, scene: Scene) -> None:
        """Have somebody die in the piece's way; whoever died is replaced when this returns."""
        self.victim, self.died_at = victim, time.time()
        die(self.piece.death, victim, scene)

    def drain(self, *, ends: Member | None = None) -> None:
        """Wait until nothing moves: jobs at rest, requests answered, workers idle, queues silent, and `ends` ended.

        Where that takes too long, the evidence is taken all the same, for the checker to judge.
        """
        patience = DRAIN_SECONDS if self.piece.mutant is None else MUTANT_DRAIN_SECONDS
        try:
            until(self._is_at_rest_or_alone, seconds=patience, what="the end of the jobs")
            until(self._is_answered, seconds=patience, what="the end of the requests")
            if ends is not None and ends.lives:
                ends.process.wait(patience)
            alive = [worker.pid for worker in self.lane.workers if worker.lives]
            until(lambda: self.lane.switchboard.busy(alive) == 0, seconds=patience, what="the end of the attempts")
            until(self._is_silent, seconds=patience, what="the end of the rings")
        except (NotReached, TimeoutExpired, WorkerEnded) as error:
            self.unrest = str(error)

    def _is_at_rest_or_alone(self) -> bool:
        for worker in self.lane.workers:
            if not worker.lives and worker is not self.victim:
                raise WorkerEnded(f"{worker.name} ended by itself with {worker.process.returncode}")
        return self.is_at_rest()

    def _is_answered(self) -> bool:
        return self.lane.world.open_requests(self.piece.name) == 0

    def _is_silent(self) -> bool:
        with self.lane.redis() as client:
            return not any(client.llen(key) for key in client.scan_iter("actions*", _type="list"))

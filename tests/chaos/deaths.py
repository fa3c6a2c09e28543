"""How somebody dies at a point, and what is done so that the others can go on."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import psutil

from tests.chaos.evidence import Fault
from tests.chaos.evidence_folder import Appender
from tests.chaos.lane import LEASE_SECONDS, Lane
from tests.chaos.patience import NotReached, until
from tests.chaos.processes import Member

Death = Literal["sigkill", "group_kill", "child_kill", "sigstop", "terminate_backend", "redis_kill", "redis_loss"]
# A worker that must start first takes a few seconds.
TAKEN_OVER_SECONDS = 30.0
DEATHS: tuple[Death, ...] = get_args(Death)
# Those for which the workers perform in child processes.
OF_GROUPS: AbstractSet[Death] = {"group_kill", "child_kill"}


@dataclass(frozen=True, slots=True)
class Scene:
    """A death about to happen.

    Attributes:
        folder: Where the faults are noted.
        point: Where the victim is.
        let_go: Has whoever is parked, or held by the world, go on.
        taken_over: Whether nobody waits any more for the victim's lease to end.
    """

    lane: Lane
    folder: Path
    point: str
    let_go: Callable[[], None]
    taken_over: Callable[[], bool]

    # A death takes a while: whoever dies may still write between its two lines.
    def note(
        self,
        fault: str,
        phase: Literal["begin", "end"],
        victim: Member | None,
        *,
        pid: int | None = None,
        at: float | None = None,
    ) -> None:
        """Write a line of the faults; the process is the victim's first, or Redis, unless another one is named."""
        target = "redis" if victim is None else victim.name
        pid = pid or (self.lane.valkey.pid if victim is None else victim.pid)
        with Appender(self.folder, Fault) as faults:
            faults.add(
                Fault(
                    at=at or time.time(),
                    fault=fault,
                    phase=phase,
                    target=target,
                    point=self.point,
                    pid=pid,
                    kind=None,
                    began=None,
                    ended=None,
                    bit=None,
                )
            )


def die(death: Death, victim: Member, scene: Scene) -> None:
    """Have the victim die, and let go of everybody who lives; the lane has replaced it when this returns."""
    {
        "sigkill": _sigkill,
        "group_kill": _group_kill,
        "child_kill": _child_kill,
        "sigstop": _sigstop,
        "terminate_backend": _terminate_backend,
        "redis_kill": _redis_kill,
        "redis_loss": _redis_loss,
    }[death](victim, scene)
    scene.lane.replace()


def _sigkill(victim: Member, scene: Scene) -> None:
    scene.note("sigkill", "begin", victim)
    victim.process.kill()
    victim.process.wait()
    scene.note("sigkill", "end", victim)
    scene.let_go()


def _group_kill(victim: Member, scene: Scene) -> None:
    scene.note("group_kill", "begin", victim)
    victim.end()
    scene.note("group_kill", "end", victim)
    scene.let_go()


def _child_kill(victim: Member, scene: Scene) -> None:
    """Kill the pool's processes, as a machine without memory does; the worker's first process goes on."""
    children = victim.children
    for child in children:
        scene.note("sigkill", "begin", victim, pid=child.pid)
        child.kill()
    if not children:
        raise NotReached(f"{victim.name} has no children")
    psutil.wait_procs(children, TAKEN_OVER_SECONDS)
    for child in children:
        scene.note("sigkill", "end", victim, pid=child.pid)
    scene.let_go()


def _sigstop(victim: Member, scene: Scene) -> None:
    """Stop the process until its leases are over and others have what was its; it comes back with all it holds."""
    began = time.monotonic()
    scene.note("sigstop", "begin", victim)
    victim.signal_group(signal.SIGSTOP)
    victim.stopped = True
    until(
        lambda: time.monotonic() - began > LEASE_SECONDS and scene.taken_over(),
        seconds=TAKEN_OVER_SECONDS,
        what="another worker",
    )
    scene.let_go()
    scene.note("sigstop", "end", victim)
    victim.stopped = False
    victim.signal_group(signal.SIGCONT)


def _terminate_backend(victim: Member, scene: Scene) -> None:
    scene.note("terminate_backend", "begin", victim)
    if not scene.lane.cut(victim):
        raise NotReached(f"{victim.name} has no session that could be ended")
    scene.note("terminate_backend", "end", victim)
    scene.let_go()


def _redis_kill(_victim: Member, scene: Scene) -> None:
    """Kill Redis, have the victim go on without it, and start it again."""
    scene.note("redis_kill", "begin", None)
    scene.lane.valkey.kill()
    scene.let_go()
    scene.lane.valkey.start()
    scene.note("redis_kill", "end", None)


def _redis_loss(_victim: Member, scene: Scene) -> None:
    """Kill Redis, and have another one in its place that knows of nothing."""
    scene.note("redis_loss", "begin", None)
    scene.lane.valkey.kill()
    shutil.rmtree(scene.lane.valkey.home / "data")
    scene.let_go()
    scene.lane.valkey.start()
    scene.note("redis_loss", "end", None)

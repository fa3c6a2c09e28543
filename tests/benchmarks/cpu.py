"""Who spends processor time on a job: on a machine whose cores are all busy, that is what a rate is made of."""

from __future__ import annotations

from collections.abc import Mapping

import psutil

WORKER = "worker"
# A prefork worker's parent talks to the broker, its children perform.
PARENT, CHILDREN = "worker's parent", "worker's two processes"


def cpu_seconds(spenders: Mapping[str, int]) -> dict[str, float]:
    """Return the processor time that each has spent so far, with all its children, living and dead.

    Args:
        spenders: Process ids by name; the one named ``worker`` is answered in two parts.
    """
    spent: dict[str, float] = {}
    for name, pid in spenders.items():
        process = psutil.Process(pid)
        own, children = _own(process), _of_children(process)
        spent |= {PARENT: own, CHILDREN: children} if name == WORKER else {name: own + children}
    return spent


def _own(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _of_children(process: psutil.Process) -> float:
    times = process.cpu_times()
    spent = times.children_user + times.children_system  # of those that have ended
    for child in process.children():
        try:
            spent += _own(child)
        except psutil.NoSuchProcess:  # ended since it was listed
            continue
    return float(spent)

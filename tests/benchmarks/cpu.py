"""Who spends processor time on a job: on a machine whose cores are all busy, that is what a rate is made of."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import psutil

from tests.benchmarks.figures import Figures
from tests.benchmarks.markdown import table

# A prefork worker's main process talks to the broker, its children perform. The others do both in the main process.
MAIN, CHILDREN = "workers' main processes", "their children"
POSTGRES, VALKEY, PRODUCER = "Postgres", "Valkey", "producer"
SPENDERS = (MAIN, CHILDREN, POSTGRES, VALKEY, PRODUCER)

# How Linux numbers the clock of what a process was given by the scheduler; see clock_getcpuclockid(3).
_SCHEDULED = 2


class Meter:
    """The processor time that is spent on jobs from its making on, by every process that has to do with them."""

    def __init__(self, workers: Sequence[int], servers: Mapping[str, int]) -> None:
        """Take the process ids of workers, and of the servers by name."""
        self._workers, self._servers = workers, servers
        self._before = self._spent()

    def us_per_job(self, jobs: int) -> dict[str, float]:
        """Return microseconds for each of so many jobs, by who spent them; the producer is this process."""
        before, after = self._before, self._spent()
        return {who: (after[who] - before[who]) / jobs * 1e6 for who in after}

    def _spent(self) -> dict[str, float]:
        workers = [psutil.Process(pid) for pid in self._workers]
        servers = {name: psutil.Process(pid) for name, pid in self._servers.items()}
        return {
            MAIN: sum(map(_own, workers)),
            CHILDREN: sum(map(_of_children, workers)),
            **{name: _own(process) + _of_children(process) for name, process in servers.items()},
            PRODUCER: _own(psutil.Process(os.getpid())),
        }


def keep(figures: Figures, measure: str, who: str, spent: Mapping[str, float]) -> None:
    """Keep what a meter said of one round."""
    for spender, us in spent.items():
        figures.add(f"{measure}: {spender}", who, us)


def costs(
    figures: Figures,
    measure: str,
    names: Sequence[str],
    spenders: Sequence[str],
    called: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return a table of medians: each of those named, and what the spenders named spent on a job.

    Where they have other names in this table, `called` says which.
    """
    rows = []
    for who in names:
        spent = [statistics.median(figures.of(f"{measure}: {spender}", who)) for spender in spenders]
        rows.append((who, *(f"{us:,.0f}" for us in spent), f"**{sum(spent):,.0f}**"))
    return table(("", *(called.get(spender, spender) for spender in spenders), "all"), rows)


def _own(process: psutil.Process) -> float:
    """Return the seconds that a process has spent itself, threads that have ended included.

    By its own clock where it can be had, which counts nanoseconds: what psutil reads comes in hundredths of a second,
    by process and by mode, and a turn of a short backlog takes a second of all of them.

    Raises:
        psutil.NoSuchProcess: If it has ended.
    """
    if sys.platform != "linux":
        times = process.cpu_times()
        return float(times.user + times.system)
    try:
        return time.clock_gettime(~process.pid << 3 | _SCHEDULED)
    except OSError as error:
        if psutil.pid_exists(process.pid):
            raise
        raise psutil.NoSuchProcess(process.pid) from error


def _of_children(process: psutil.Process) -> float:
    times = process.cpu_times()
    spent = times.children_user + times.children_system  # of those that have ended
    for child in process.children():
        try:
            spent += _own(child)
        except psutil.NoSuchProcess:  # ended since it was listed
            continue
    return float(spent)

"""What a part of Surefoot costs a job: the same backlog worked off with that part and without it, in turn.

Each time by worker processes of their own and in a ledger of its own, since two processes that do the same differ by
more than what is looked for. What it costs is processor time, from the enqueueing to the outcome: a rate is made of
that, and of whatever else happens on the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field

from tests.benchmarks import cpu
from tests.benchmarks.backlog import Worked, work_off
from tests.benchmarks.bypass import GATES, INDEXES, SEALING, WITHOUT
from tests.benchmarks.clients import SurefootClient
from tests.benchmarks.crew import ASYNCIO_2
from tests.benchmarks.ends import Stalled
from tests.benchmarks.figures import Figures
from tests.benchmarks.stage import Ground, Stage
from tests.benchmarks.workers import Workers, working

CREW = ASYNCIO_2
# Whoever enqueues has nothing to do any more once the workers go on, but to look whether they have ended.
AT_WORK = (cpu.MAIN, cpu.CHILDREN, cpu.POSTGRES, cpu.VALKEY)
# What tells of a part.
LEFT = {
    GATES: "SELECT count(*) FROM events WHERE data ->> 'result_sha256' IS NOT NULL",
    SEALING: "SELECT count(*) FROM seals",
}
SPENDERS = (cpu.MAIN, cpu.POSTGRES, cpu.VALKEY, cpu.PRODUCER)

Around = Callable[[Stage, Workers], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run the workers.

    Attributes:
        name: As the report calls it.
        without: The parts of them that are out of the way; see bypass.py.
        told: What they are told beside, in the environment.
        lone_rings: Whether each job has a ring of its own; else one names up to a hundred.
    """

    name: str
    without: Sequence[str] = ()
    told: Mapping[str, str] = field(default_factory=dict)
    lone_rings: bool = False


class WayClient(SurefootClient):
    """Surefoot, with workers that run one way."""

    app = "tests.benchmarks.bypassed"

    def __init__(self, stage: Stage, way: Way) -> None:
        """Connect nothing yet; take from the ledger what parts have there that are out of the way."""
        super().__init__(stage, "bench.pure", lone_rings=way.lone_rings)
        self._told = {WITHOUT: ",".join(way.without)} | dict(way.told)
        if GATES in way.without:
            stage.query(f"DROP INDEX {', '.join(INDEXES)}")

    def environment(self) -> dict[str, str]:
        """Return a worker's settings, and which of its parts are out of the way."""
        return super().environment() | self._told


def rate(measure: str) -> str:
    """Return what jobs per second are kept as."""
    return f"{measure}, jobs/s"


def per_core(measure: str) -> str:
    """Return what jobs for each second of processor time are kept as."""
    return f"{measure}, jobs for a second of processor time"


def run(
    ground: Ground,
    way: Way,
    *,
    jobs: int,
    figures: Figures,
    measure: str,
    around: Around = lambda _stage, _workers: nullcontext(),
) -> str:
    """Work off one backlog one way, and keep what it took; `around` is entered once the workers are warm.

    Returns:
        A line that tells of it.
    """
    with ground.stage() as stage, closing(WayClient(stage, way)) as client, working(client, CREW) as workers:
        workers.warm(client)
        with around(stage, workers):
            worked = work_off(client, workers, jobs)
            _check(stage, way)
    us = _us_of_all(worked)
    figures.add(rate(measure), way.name, worked.rate)
    figures.add(per_core(measure), way.name, 1e6 / sum(us.values()))
    cpu.keep(figures, measure, way.name, us)
    return f"{way.name}: {worked.rate:,.0f} jobs/s, {sum(us.values()):,.0f} µs of processor time a job"


def _check(stage: Stage, way: Way) -> None:
    """Make sure that what is out of the way was, and nothing else, by what these parts leave in the ledger.

    Raises:
        Stalled: If not.
    """
    for part, left in LEFT.items():
        count = int(stage.query(left)[0][0])
        if (count == 0) is not (part in way.without):
            raise Stalled(f"{way.name}: {part} left {count} rows")


def _us_of_all(worked: Worked) -> dict[str, float]:
    """Return what a job took on all of its way, by who spent it."""
    at_work = {spender: worked.cpu_us[spender] for spender in AT_WORK}
    return {who: at_work.get(who, 0.0) + worked.enqueued_us[who] for who in worked.enqueued_us}

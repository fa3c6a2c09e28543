"""What a part of Surefoot costs a job: backlogs worked off with that part and without it, in turn.

By the same worker processes, in which the part is switched, and in one ledger: two processes that do the same differ by
more than what is looked for. Turns take a second or two, since a machine's speed drifts by a quarter within a minute
(of a quarter of a second, they differed by a third whatever they were), and go with, without, without, with: what
drifts evenly hits both alike. Each four give one figure, so that what hits a few of them, as a checkpoint does, is not
in the median; nor is what that costs. What a part costs is processor time, from the enqueueing to the outcome: a rate
is made of that, and of whatever else happens on the machine.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field

from tests.benchmarks import cpu
from tests.benchmarks.backlog import Worked, work_off
from tests.benchmarks.bypass import IN, OUT, SEALING, SWITCH, SWITCHED, WITHOUT
from tests.benchmarks.clients import SurefootClient
from tests.benchmarks.crew import ASYNCIO_2
from tests.benchmarks.figures import Figures
from tests.benchmarks.markdown import ratio, spread
from tests.benchmarks.stage import Ground, Stage
from tests.benchmarks.workers import Workers, working

CREW = ASYNCIO_2
# Whether a turn is without the part, for the four that are compared; and how many turns there are in a round.
FOUR = (False, True, True, False)
TURNS = 6 * len(FOUR)
# Whoever enqueues has nothing to do any more once the workers go on, but to look whether they have ended.
AT_WORK = (cpu.MAIN, cpu.CHILDREN, cpu.POSTGRES, cpu.VALKEY)
SPENDERS = (cpu.MAIN, cpu.POSTGRES, cpu.VALKEY, cpu.PRODUCER)

# Entered around the whole of it, once the workers are warm, and around each turn, which is told whether it is without.
Around = Callable[[Stage, Workers], AbstractContextManager[object]]
AroundTurn = Callable[[Stage, Workers, bool], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Compared:
    """One part of a worker, which is there in half of the turns.

    Attributes:
        part: As bypass.py names it.
        name: As the report calls jobs with it.
        without: And without it.
        told: What workers are told beside, in the environment.
        lone_rings: Whether each job has a ring of its own; else one names up to a hundred.
    """

    part: str
    name: str
    without: str
    told: Mapping[str, str] = field(default_factory=dict)
    lone_rings: bool = False


class SwitchedClient(SurefootClient):
    """Surefoot, with workers in which a part is switched; nothing is sealed meanwhile, which is measured by itself."""

    app = "tests.benchmarks.bypassed"

    def __init__(self, stage: Stage, compared: Compared) -> None:
        """Connect nothing yet; the part is there."""
        super().__init__(stage, "bench.pure", lone_rings=compared.lone_rings)
        self._switch = stage.folder / "switch"
        self._switch.write_bytes(IN)
        told = {WITHOUT: SEALING, SWITCHED: compared.part, SWITCH: str(self._switch)}
        self._told = told | dict(compared.told)

    def environment(self) -> dict[str, str]:
        """Return a worker's settings, and which of its parts are out of the way."""
        return super().environment() | self._told

    def put(self, *, out: bool) -> None:
        """Have the part be out of the workers' way, or in it, from now on."""
        with self._switch.open("r+b") as file:  # the same file, which they have in memory
            file.write(OUT if out else IN)


def rate(measure: str) -> str:
    """Return what jobs per second are kept as."""
    return f"{measure}, jobs/s"


def per_core(measure: str) -> str:
    """Return what jobs for each second of processor time are kept as."""
    return f"{measure}, jobs for a second of processor time"


def run(
    ground: Ground,
    compared: Compared,
    *,
    jobs: int,
    figures: Figures,
    measure: str,
    turns: int = TURNS,
    around: Around = lambda _stage, _workers: nullcontext(),
    around_turn: AroundTurn = lambda _stage, _workers, _out: nullcontext(),
) -> str:
    """Work off so many jobs in each turn, and keep what they took with the part and without it.

    Returns:
        A line that tells of it: microseconds for a job, and how many times as many jobs there are with the part.
    """
    names = {False: compared.name, True: compared.without}
    spent = defaultdict[bool, list[float]](list)
    with ground.stage() as stage, closing(SwitchedClient(stage, compared)) as client, working(client, CREW) as workers:
        workers.warm(client)
        with around(stage, workers):
            for _ in range(turns // len(FOUR)):
                found = defaultdict[bool, list[Worked]](list)
                for out in FOUR:
                    client.put(out=out)
                    with around_turn(stage, workers, out):
                        found[out].append(work_off(client, workers, jobs))
                for out, name in names.items():
                    spent[out].append(_keep(figures, measure, name, found[out]))
    told = (f"{name}: {statistics.median(spent[out]):,.1f} µs of processor time a job" for out, name in names.items())
    over = statistics.median(without / with_it for with_it, without in zip(spent[False], spent[True], strict=True))
    return f"{', '.join(told)}; {over:.3f}"


def _keep(figures: Figures, measure: str, name: str, found: list[Worked]) -> float:
    """Keep what the turns of one kind among four came to; return microseconds for a job."""
    each = [_us_of_all(worked) for worked in found]
    us = {who: statistics.fmean(one[who] for one in each) for who in each[0]}
    figures.add(rate(measure), name, statistics.harmonic_mean([worked.rate for worked in found]))
    figures.add(per_core(measure), name, 1e6 / sum(us.values()))
    cpu.keep(figures, measure, name, us)
    return sum(us.values())


def _us_of_all(worked: Worked) -> dict[str, float]:
    """Return what a job took on all of its way, by who spent it."""
    at_work = {spender: worked.cpu_us[spender] for spender in AT_WORK}
    return {who: at_work.get(who, 0.0) + worked.enqueued_us[who] for who in worked.enqueued_us}


def rows(figures: Figures, measure: str, compared: Compared) -> list[tuple[str, ...]]:
    """Return the two rows of a table: with the part and without it."""
    with_it, without = (per_core(measure), compared.name), (per_core(measure), compared.without)
    return [
        (name, spread(figures.of(rate(measure), name)), spread(figures.of(*key)), over)
        for name, key, over in (
            (compared.name, with_it, ratio(figures, with_it, without)),
            (compared.without, without, "1"),
        )
    ]

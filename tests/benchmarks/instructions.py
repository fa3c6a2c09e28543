"""Instructions a job, counted by callgrind (Valgrind): what neither neighbours nor the machine's pace change.

`python -m tests.benchmarks.instructions`, in about ten minutes: counting slows a worker down fiftyfold, and no server.
So what it does once a second, whatever the load, is in a job's count fifty times, and fewer jobs share a statement. The
figures are for one worker beside another, or before and after a change.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from tests.benchmarks.crew import ASYNCIO, Crew
from tests.benchmarks.ends import Stalled, until_ended
from tests.benchmarks.markdown import table
from tests.benchmarks.peers import CELERY_THREADS, LONE, SUREFOOT, Peer
from tests.benchmarks.stage import Ground, prepare
from tests.benchmarks.workers import working
from tests.houses import ROOT
from worker.dev.servers import servers
from worker.log import configure

FOLDER = ROOT / ".surefoot"
# All that a worker does but perform is in both of a pair, its start and its end above all.
FEW = 200
SHOWN = 6

NAMED = re.compile(r"(?:ob|cob)=\((\d+)\)(?: (.*))?")
COSTS = re.compile(r"[+\-*\d]")


@dataclass(frozen=True)
class Counted(Crew):
    """One worker under callgrind, which leaves what it counted in a folder."""

    folder: Path = FOLDER

    def command(self, app: str, number: int) -> list[str]:
        """Return the worker's command, and that it is counted."""
        out = f"--callgrind-out-file={self.folder}/%p"
        return ["valgrind", "--tool=callgrind", "--quiet", out, *super().command(app, number)]


@dataclass(frozen=True, slots=True)
class Measured:
    """Whose instructions are counted.

    Attributes:
        peer: How its jobs are enqueued.
        pool: Of its one worker.
        concurrency: As in the benchmarks.
        jobs: How many more there are in the second of two runs.
    """

    peer: Peer
    pool: str
    concurrency: int
    jobs: int


MEASURED = (
    Measured(SUREFOOT, ASYNCIO, 200, 2_000),
    Measured(LONE, ASYNCIO, 200, 500),
    Measured(CELERY_THREADS, "threads", 10, 500),
)


@click.command()
def main() -> None:
    """Count, and print a table."""
    if shutil.which("valgrind") is None:
        raise click.ClickException("Valgrind is not installed; Debian's package is called valgrind")
    configure("auto", "warning")
    FOLDER.mkdir(exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="counts-", dir=FOLDER) as made, servers(Path(made)) as running:
        prepare(running)
        for measured in MEASURED:
            a_job = _instructions_a_job(Ground(running, Path(made)), measured, Path(made))
            total = sum(a_job.values())
            where = ", ".join(f"{name} {count / total:.0%}" for name, count in a_job.most_common(SHOWN))
            rows.append([measured.peer.name, f"{total:,}", where])
            click.echo(f"{measured.peer.name}: {total:,}")
    click.echo("\n" + table(["one worker of", "instructions a job", "most of them in"], rows))


def _instructions_a_job(ground: Ground, measured: Measured, folder: Path) -> Counter[str]:
    few, many = (_instructions(ground, measured, jobs, folder) for jobs in (FEW, FEW + measured.jobs))
    many.subtract(few)
    return Counter({name: count // measured.jobs for name, count in many.items() if count > 0})


def _instructions(ground: Ground, measured: Measured, jobs: int, made_in: Path) -> Counter[str]:
    """Return how many instructions a worker took, from its start to its end, by the file that they are in."""
    with tempfile.TemporaryDirectory(dir=made_in) as made, ground.stage() as stage, measured.peer.on(stage) as client:
        crew = Counted(measured.pool, 1, measured.concurrency, slowness=20.0, folder=Path(made))
        with working(client, crew) as workers:
            client.enqueue_all(0, jobs)
            until_ended(client)
            workers.confirm(client, jobs)
        counts: Counter[str] = Counter()
        for file in Path(made).iterdir():
            counts.update(by_file(file.read_text().splitlines()))
        if not counts:  # one that does not end in time is killed, and writes nothing
            raise Stalled("the worker was counted, and did not say")
        return counts


def by_file(lines: Iterable[str]) -> Counter[str]:
    """Return what callgrind wrote: instructions by the executable or library that they are in.

    After a line that says who was called comes one with what that took, which is counted there already.
    """
    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    within, called = "", False
    for line in lines:
        if (named := NAMED.match(line)) is not None:
            number, name = named.groups()
            if name is not None:
                names[number] = Path(name).name.partition(".")[0]
            if line.startswith("ob="):
                within = names[number]
        elif line.startswith("calls="):
            called = True
        elif COSTS.match(line):
            if not called:
                counts[within] += int(line.split()[-1])
            called = False
    return counts


if __name__ == "__main__":
    main()

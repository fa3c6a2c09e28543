"""The release runs side by side, as a page of the documents: `python -m tests.chaos.report.releases docs/chaos`.

It reads the reports that lie there; `python -m tests.chaos.report KEPT --into docs/chaos --name release-1` makes one.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from tests.chaos.report.facts import Report

PAGE = "releases.md"
INTRODUCTION = """# The release runs

A release has to get through three storms, each of more than 100,000 jobs and 1,000 faults of all kinds: kills, stops,
lost and slow connections, servers that die, fill up or come back with old news, a clock that jumps, workers of two
builds. It is judged by a checker that shares nothing with the product but its promises; which deliberate defects that
checker has to find, [mutants.md](mutants.md) says, and [reports.md](reports.md) how to read a report.
"""
# What breaks which promise of the checker's.
PROMISES = {
    "I1": "lost",
    "I2": "phantom: nobody asked for it, or it left before its intent",
    "I3": "happened twice: keyed, verifiable, unsafe",
    "I6": "in doubt without being shown as such",
    "I7": "illegal moves of a job",
    "I8": "writes of those whom a job has left behind",
    "I9": "two owners, or more tries than allowed",
}


def runs_in(folder: Path) -> dict[str, Report]:
    """Return the reports of the release runs that lie in a folder, by name, in the order of their seeds."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("release-*.json")}
    return dict(sorted(found.items(), key=lambda each: each[1]["run"]["seed"]))


def releases(runs: dict[str, Report]) -> str:
    """Return the page."""
    heads = ["", "has to be", *(f"seed {run['run']['seed']}" for run in runs.values())]
    rules = ["---", "---:", *["---:"] * len(runs)]
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, rules, *_rows(list(runs.values())))]
    links = [
        f'* `make chaos ARGS="--size release --seed {run["run"]["seed"]}"`:'
        f" [the page]({name}.html), [the data]({name}.json); Surefoot {run['run']['versions']['surefoot']}"
        for name, run in runs.items()
    ]
    return "\n".join([INTRODUCTION, *lines, "", *links, "", _grounds(list(runs.values())), ""])


def _rows(runs: Sequence[Report]) -> Iterator[list[str]]:
    yield ["verdict", "held", *(run["verdict"] for run in runs)]
    yield ["jobs", "≥ 100,000", *(f"{run['run']['jobs']:,}" for run in runs)]
    yield ["faults", "≥ 1,000", *(f"{run['run']['faults']:,}" for run in runs)]
    yield _row(runs, "of which were felt", "", "faults_that_bit", "{:,.0f}")
    yield _row(runs, "kinds of faults", "≥ 25", "kinds", "{:.0f}")
    for promise, what in PROMISES.items():
        yield [what, "0", *(_broken(run, promise) for run in runs)]
    yield ["all other promises, broken", "0", *(_broken(run, *_others(run)) for run in runs)]
    yield _row(runs, "left in doubt", "≤ 1 %", "in_doubt_share", "{:.2%}")
    yield _row(runs, "in doubt in calm, deadlines aside", "0", "in_doubt_in_calm", "{:.0f}")
    yield _row(runs, "orphaned processes", "0", "orphans", "{:.0f}")
    yield _row(runs, "connections leaked", "0", "leaked_connections", "{:.0f}")
    yield ["processes that only grew", "0", *(_growing(run) for run in runs)]
    yield _row(runs, "from the last fault to rest", "≤ 120 s", "drain_seconds", "{:.0f} s")
    yield _row(runs, "throughput between faults, of that in calm", "≥ 0.8", "throughput_ratio", "{:.2f}")
    yield _row(runs, "the whole run", "≤ 40 min", "seconds", "{:.0f} min", over=60)


def _row(runs: Sequence[Report], what: str, target: str, figure: str, form: str, *, over: int = 1) -> list[str]:
    values = ({each["name"]: each["value"] for each in run["figures"]}[figure] for run in runs)
    return [what, target, *("none" if value is None else form.format(value / over) for value in values)]


def _broken(run: Report, *promises: str) -> str:
    return str(sum(each["broken"] for each in run["invariants"] if each["id"] in promises))


def _others(run: Report) -> list[str]:
    return [each["id"] for each in run["invariants"] if each["id"] not in PROMISES]


def _growing(run: Report) -> str:
    judged = run["growth"]["judged"]
    grown, watched = ({(each["process"], each["pid"]) for each in some} for some in (_grown(judged), judged))
    return f"{len(grown)} of {len(watched)}"


def _grown(judged: Sequence[Report]) -> list[Report]:
    return [each for each in judged if each["is_growing"]]


def _grounds(runs: Sequence[Report]) -> str:
    most = max((run["bounds"]["per_job_below"] or 0.0 for run in runs), default=0.0)
    machines = " · ".join(sorted({run["run"]["machine"] for run in runs}))
    text = f"""Made on {machines}. That nothing was lost in so many jobs means, 95 times out of 100, that fewer than
        {most:.4%} are; a report claims no more."""
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(folder: Path) -> None:
    """Write the page of the release runs whose reports lie in FOLDER."""
    runs = runs_in(folder)
    if not runs:
        raise click.UsageError(f"no release-*.json lies in {folder}")
    (folder / PAGE).write_text(releases(runs), encoding="utf-8")
    click.echo(folder / PAGE)


if __name__ == "__main__":
    main()

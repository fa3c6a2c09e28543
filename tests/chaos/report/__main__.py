"""`python -m tests.chaos.report FOLDER`: judge a run's folder, and write `report.json` and `report.html` there.

    python -m tests.chaos.report FOLDER [--into FOLDER] [--name NAME]

Exit status: 0 held; 1 a promise is broken, a figure missed, or a process only grew; 2 inconclusive; 3 the folder cannot
be read, and there is no report then; 64 wrong call.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from tests.chaos.checker.__main__ import UNREADABLE, WRONG_CALL
from tests.chaos.checker.judge import verdict_on
from tests.chaos.report.facts import Report, report_of
from tests.chaos.report.inputs import read_all
from tests.chaos.report.page import page
from tests.chaos.report.series import plain, timeline_of
from tests.chaos.strict import UnreadableEvidence

STATUS = {"held": 0, "broken": 1, "growing": 1, "inconclusive": 2}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--into", type=click.Path(path_type=Path), help="Where to write them; by default into the folder itself.")
@click.option("--name", default="report", show_default=True, help="What the two files are called.")
def main(folder: Path, into: Path | None, name: str) -> None:
    """Report on a run."""
    try:
        report = write_report(folder, into or folder, name)
    except UnreadableEvidence as error:
        click.echo(f"unreadable: {error}", err=True)
        sys.exit(UNREADABLE)
    click.echo(f"{report['verdict']}: {(into or folder) / name}.html")
    for why in report["why"]:
        click.echo(f"  {why}")
    sys.exit(STATUS[report["verdict"]])


def write_report(folder: Path, into: Path, name: str = "report") -> Report:
    """Judge the run in a folder and write its report as data and as a page; return the data.

    Raises:
        UnreadableEvidence: If the folder cannot be read; nothing was written.
    """
    inputs = read_all(folder)
    drawn = timeline_of(inputs)
    report = report_of(inputs, verdict_on(inputs.evidence)) | {"timeline": plain(drawn)}
    html = page(report, drawn)
    into.mkdir(parents=True, exist_ok=True)
    (into / f"{name}.json").write_text(_json(report), encoding="utf-8")
    (into / f"{name}.html").write_text(html, encoding="utf-8")
    return report


def _json(report: Report) -> str:
    """Return it with a line for each fact, and one for each part of the timeline, whose points would take thousands."""
    facts = {name: value for name, value in report.items() if name != "timeline"}
    parts = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in report["timeline"].items()]
    timeline = "{\n" + ",\n".join(parts) + "\n }"
    return json.dumps(facts, indent=1, ensure_ascii=False).removesuffix("\n}") + f',\n "timeline": {timeline}\n}}\n'


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(WRONG_CALL)

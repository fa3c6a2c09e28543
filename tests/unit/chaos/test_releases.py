"""The release runs side by side: the page says what their reports say, and what was broken or missed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.chaos.report.__main__ import write_report
from tests.chaos.report.releases import PAGE, main, releases, runs_in
from tests.unit.chaos.test_report import stormy, write

COMMAND = 'make chaos ARGS="--size release --seed {} --jobs 100000 --faults 1000 --minutes 36"'
FIGURES = {
    "faults_that_bit": 1,
    "kinds": 1,
    "in_doubt_share": 0.00123,
    "in_doubt_in_calm": 0,
    "orphans": 0,
    "leaked_connections": 0,
    "drain_seconds": 45.2,
    "throughput_ratio": 1.257,
    "seconds": 2268.0,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the reports of two runs; in the second of them a job is lost, and it never comes to rest."""
    for seed in (1, 2):
        story, figures = stormy(), {name: {"value": value, "unit": ""} for name, value in FIGURES.items()}
        if seed > 1:
            story.accepted("chaos.pure")
            figures["drain_seconds"]["value"] = None
        told = {
            "seed": seed,
            "command": COMMAND.format(seed),
            "machine": "2 processors",
            "versions": {"surefoot": "abc"},
        }
        run = tmp_path / f"run-{seed}"
        run.mkdir()
        write_report(write(run, story, figures=figures, plan=told), tmp_path, f"release-{seed}")
    return tmp_path


def cells(folder: Path) -> dict[str, list[str]]:
    rows = [line.strip("| ").split(" | ") for line in releases(runs_in(folder)).splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


def test_the_page_has_each_figure_of_each_run_and_what_it_has_to_be(folder: Path) -> None:
    told = cells(folder)
    assert told["left in doubt"] == ["≤ 1 %", "0.12%", "0.12%"]
    assert told["throughput between faults, of that in calm"] == ["≥ 0.8", "1.26", "1.26"]
    assert told["the whole run"] == ["≤ 40 min", "38 min", "38 min"]


def test_the_page_says_which_run_broke_what_and_what_was_not_reached(folder: Path) -> None:
    told = cells(folder)
    assert told["verdict"] == ["held", "held", "broken"]
    assert told["lost"] == ["0", "0", "1"]
    assert told["happened twice: keyed, verifiable, unsafe"] == ["0", "0", "0"]
    assert told["from the last fault to rest"] == ["≤ 120 s", "45 s", "none"]


def test_each_run_can_be_repeated_by_the_line_that_the_page_has(folder: Path) -> None:
    page = releases(runs_in(folder))
    for seed in (1, 2):
        line = f'* `make chaos ARGS="--size release --seed {seed}"`: [the page](release-{seed}.html)'
        assert line in page


def test_the_page_is_written_beside_the_reports(folder: Path) -> None:
    assert CliRunner().invoke(main, [str(folder)]).exit_code == 0
    assert (folder / PAGE).read_text() == releases(runs_in(folder))


def test_a_folder_without_release_runs_is_refused(tmp_path: Path) -> None:
    refused = CliRunner().invoke(main, [str(tmp_path)])
    assert (refused.exit_code, "no release-*.json" in refused.output) == (2, True)
    assert not list(tmp_path.iterdir())

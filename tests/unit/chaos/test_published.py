"""The release runs whose reports lie in `docs/chaos`: all of one version, each held, and none smaller than it says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.report.releases import PAGE, releases, runs_in
from tests.chaos.report.words import FIGURES
from tests.chaos.storm.kinds import KINDS
from tests.chaos.storm.sizes import SIZES
from tests.houses import ROOT

FOLDER = ROOT / "docs" / "chaos"
RUNS = runs_in(FOLDER)
RELEASE = SIZES["release"]
SMALL_KIB = 512

each_run = pytest.mark.parametrize("report", RUNS.values(), ids=RUNS.keys())


def test_there_are_three_of_three_seeds_and_one_version() -> None:
    assert [report["run"]["seed"] for report in RUNS.values()] == [1, 2, 3]
    (version,) = {report["run"]["versions"]["surefoot"] for report in RUNS.values()}
    assert int(version, 16)  # a commit, and nothing beside it


def test_the_page_that_compares_them_says_what_their_reports_say() -> None:
    assert (FOLDER / PAGE).read_text(encoding="utf-8") == releases(RUNS)


def test_the_readme_says_how_long_each_took_and_what_it_lost() -> None:
    (minutes,) = {f"{report['run']['seconds'] / 60:.0f}" for report in RUNS.values()}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"three of those, of {minutes} minutes each, lost nothing and did nothing twice" in readme


@each_run
def test_each_was_held_with_nothing_against_it(report: dict[str, Any]) -> None:
    assert (report["verdict"], report["why"], report["findings_in_all"]) == ("held", [], 0)
    assert not [each for each in report["invariants"] if each["broken"]]
    assert {each["name"] for each in report["figures"]} == set(FIGURES)
    assert not [each for each in report["figures"] if each["target"] is not None and each["held"] is not True]


@each_run
def test_each_was_as_large_as_a_release_and_no_longer_on_two_processors(report: dict[str, Any]) -> None:
    run = report["run"]
    asked = f"--jobs {RELEASE.jobs} --faults {RELEASE.faults} --minutes {RELEASE.minutes:g}"
    assert run["size"] == "release"
    assert run["command"] == f'make chaos ARGS="--size release --seed {run["seed"]} {asked}"'
    assert (run["jobs"] >= RELEASE.jobs, run["faults"] >= RELEASE.faults) == (True, True)
    assert run["seconds"] <= RELEASE.seconds
    assert run["machine"].startswith("2 processors")


@each_run
def test_each_had_all_kinds_of_faults_and_each_was_felt_often_enough(report: dict[str, Any]) -> None:
    assert report["run"]["not_here"] == {}
    assert {each["kind"] for each in report["faults"]} == set(KINDS)
    assert [each for each in report["faults"] if each["bit"] < RELEASE.quota] == []


@pytest.mark.parametrize("name", RUNS)
def test_the_page_of_each_is_of_the_same_run_and_small(name: str) -> None:
    run, page = RUNS[name]["run"], FOLDER / f"{name}.html"
    shown = page.read_text(encoding="utf-8")
    assert f"seed {run['seed']}: held</title>" in shown
    assert f"{run['jobs']:,} jobs" in shown
    assert all(path.stat().st_size < SMALL_KIB * 1024 for path in (page, FOLDER / f"{name}.json"))

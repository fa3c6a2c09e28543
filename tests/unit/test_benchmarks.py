"""The benchmarks' own page, rules and ways: what can be wrong with them before anything is measured."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest

from tests.benchmarks import console, gates, over_http, targets
from tests.benchmarks.bypass import IN, OUT, PARTS, SEALING, SWITCH, SWITCHED, WITHOUT, switch
from tests.benchmarks.figures import Figures, Plan, percentile
from tests.benchmarks.instructions import by_file
from tests.benchmarks.machine import Machine
from tests.benchmarks.report import BEGIN, END, Run, page, prose_of
from tests.benchmarks.rounds import BY_ROUND, LEDGER, SECTIONS
from tests.houses import ROOT
from worker.sealer import Sealer

PLAN = Plan(rounds=3, jobs=100, waits=10, ledger=1)
MACHINE = Machine(
    cores=2,
    cpu="a processor",
    memory_gib=8.0,
    kernel="Linux",
    filesystem="ext4",
    sync_us=200.0,
    busy_cores=0.0,
    versions={},
)


def run_of(name: str, figures: Figures) -> Run:
    return Run(
        machine=MACHINE,
        plan=PLAN,
        measured=[name],
        figures=figures,
        steps=[],
        command=f"make bench ARGS='--only {name}'",
        day=date(2026, 11, 1),
        minutes=1.0,
    )


def of_the_console() -> Figures:
    figures = Figures()
    for shown in console.ROUTES:
        for ms in (40.0, 50.0, 120.0):
            figures.add(console.MEDIAN, shown, ms)
            figures.add(console.SLOWEST, shown, ms)
            figures.add(console.LOADED, shown, 101.0)
    return figures


def test_every_measure_has_its_section_and_every_section_its_measure() -> None:
    assert {*BY_ROUND, LEDGER} == {*SECTIONS}


def test_a_page_has_the_sections_of_what_was_measured_and_says_what_was_not() -> None:
    shown = page(run_of("console", of_the_console()), prose="As people said.")
    assert "\n## The console\n" in shown
    assert "\n## Over HTTP\n" not in shown
    assert f"{BEGIN}\nAs people said.\n{END}" in shown
    assert prose_of(shown) == "As people said."
    assert "| ≤ 1.6 s |  | not measured |" in shown


def test_a_target_is_met_or_missed_by_the_median_of_the_rounds() -> None:
    rows = {measure: (measured, met) for measure, _, measured, met in targets.rows(of_the_console())}
    assert rows["the console: the page of a job among 200 decisions, in the server"] == ("**50 ms** (40 to 120)", "met")
    assert rows["the console: a first look at a job, page and all that it names"][1] == "**missed**"


def test_gates_are_held_to_what_the_same_round_took_without_them() -> None:
    figures = Figures()
    for without in (2_000.0, 1_000.0, 4_000.0):
        figures.add(gates.PER_CORE, gates.GATED.without, without)
        figures.add(gates.PER_CORE, gates.GATED.name, without * 0.98)
        figures.add(gates.PER_CORE, gates.LONE.without, without)
        figures.add(gates.PER_CORE, gates.LONE.name, without * 0.96)
    found = {tuple(row[2:]) for row in targets.rows(figures) if row[2]}
    assert found == {("**0.980** (0.980 to 0.980)", "met"), ("**0.960** (0.960 to 0.960)", "**missed**")}


def test_what_is_hardly_slower_is_not_told_as_a_loss() -> None:
    figures = Figures()
    figures.add(gates.PER_CORE, gates.GATED.without, 100.0)
    figures.add(gates.PER_CORE, gates.GATED.name, 98.0)
    figures.add(over_http.RATE, over_http.DIRECT, 100.0)
    figures.add(over_http.RATE, over_http.HTTP, 50.0)
    assert list(targets.lost(figures)) == [("accepted by one API process, over `Producer` called directly", 2.0)]


def test_requests_are_due_at_the_same_times_for_every_way_and_at_the_pace_in_the_end() -> None:
    due = over_http.due_times(10_000)
    assert due == over_http.due_times(10_000)
    assert all(earlier < later for earlier, later in pairwise(due))
    assert 10_000 / due[-1] == pytest.approx(over_http.HERTZ, rel=0.05)


@pytest.mark.parametrize(("percent", "value"), [(50, 2), (75, 3), (99, 4), (100, 4)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, value: float) -> None:
    assert percentile([4, 1, 3, 2], percent) == value


def test_a_part_that_is_switched_is_out_of_the_way_while_the_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "switch"
    path.write_bytes(IN)
    real = Sealer.seal
    try:
        switch([SEALING], path)
        sealer = Sealer(None)
        for state, refused in ((IN, True), (OUT, False), (IN, True)):
            with path.open("r+b") as file:
                file.write(state)
            with pytest.raises(AttributeError) if refused else nullcontext():
                sealer.seal(None)  # type: ignore[arg-type]  # nothing can be sealed over that
    finally:
        Sealer.seal = real  # type: ignore[method-assign]  # it is everybody's


@pytest.mark.parametrize("way", [WITHOUT, SWITCHED])
def test_what_a_worker_is_measured_without_is_where_it_is_taken_from(way: str, tmp_path: Path) -> None:
    # In a process of its own: what is put out of the way stays out of it.
    (tmp_path / "switch").write_bytes(OUT)
    environment = os.environ | {
        "SUREFOOT_DATABASE_URL": "postgresql+psycopg2://nobody@127.0.0.1:1/none",
        "SUREFOOT_REDIS_URL": "redis://127.0.0.1:1/0",
        "SUREFOOT_ACTION_MODULES": "tests.benchmarks.actions",
        way: ",".join(PARTS),
        SWITCH: str(tmp_path / "switch"),
    }
    told = "from tests.benchmarks.bypassed import app; print(app.main, sorted(app.tasks))"
    found = subprocess.run(
        [sys.executable, "-c", told], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=50
    )
    assert found.returncode == 0, found.stderr
    assert "surefoot" in found.stdout
    assert "bench.pure" in found.stdout


def test_instructions_are_counted_where_they_are_and_not_where_somebody_called_them() -> None:
    written = """
version: 1
events: Ir
ob=(1) /usr/bin/python3
fn=(1) main
12 100
cob=(2) /usr/lib/libc.so.6
cfn=(2) malloc
calls=3 0
+2 700
* 5
ob=(2)
fn=(2)
0 700
summary: 805
"""
    assert by_file(written.splitlines()) == {"python3": 105, "libc": 700}

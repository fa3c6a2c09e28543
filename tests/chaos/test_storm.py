"""A short storm, from its first process to its verdict; `make chaos` has longer ones."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.evidence_folder import read
from tests.chaos.storm import plan
from tests.chaos.storm.plan import Plan
from tests.chaos.storm.sizes import SIZES
from tests.houses import ROOT

KINDS = ("kill_worker", "kill_api_mid_accept", "redis_flush", "postgres_terminate", "postgres_link_reset")
STORM = (sys.executable, "-m", "tests.chaos.storm")


@pytest.fixture
def drawn(tmp_path: Path) -> Plan:
    """A small storm's plan, which lies in a folder as a storm leaves it."""
    drawn = plan.draw("smoke", SIZES["smoke"], 1, KINDS)
    (tmp_path / "left").mkdir()
    plan.write(tmp_path / "left", drawn)
    return drawn


@pytest.mark.timeout(400)
def test_a_short_storm_breaks_no_promise_and_is_had_again_from_what_another_one_left(
    drawn: Plan, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    again = [*STORM, "--replay", str(tmp_path / "left"), "--keep", str(kept)]
    ran = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-3000:]
    assert plan.read(kept) == drawn
    struck = [fault.kind for fault in read(kept).faults if fault.kind is not None and fault.phase == "end"]
    assert sorted(struck) == sorted(each.kind for each in drawn.schedule)
    assert (kept / "report.html").read_text().startswith("<!doctype html>")
    report = json.loads((kept / "report.json").read_text())
    assert {"worker-1", "worker-2, child", "postgres", "valkey", "effect server"} <= report["timeline"]["memory"].keys()
    assert len((kept / "samples.jsonl").read_text().splitlines()) > 5


@pytest.mark.timeout(120)
def test_a_storm_that_is_cut_off_leaves_what_there_is_and_what_has_it_again(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    cut_off = [*STORM, "--size", "smoke", "--kinds", ",".join(KINDS), "--keep", str(kept)]
    with subprocess.Popen(cut_off, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as storm:
        assert storm.stdout is not None
        assert storm.stderr is not None
        assert "processes work" in storm.stderr.readline()
        storm.send_signal(signal.SIGTERM)
        assert f"evidence: {kept}" in storm.stdout.read()
    assert storm.returncode == 128 + signal.SIGTERM
    assert plan.read(kept) == plan.draw("smoke", SIZES["smoke"], 1, KINDS)
    assert {"faults.jsonl", "logs"} <= {path.name for path in kept.iterdir()}

"""A short storm, from its first process to its verdict; `make chaos` has longer ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.evidence_folder import read
from tests.houses import ROOT

KINDS = "kill_worker,kill_api_mid_accept,redis_flush,postgres_terminate,postgres_link_reset"


@pytest.mark.timeout(300)
def test_a_short_storm_breaks_no_promise_and_can_be_had_again_from_what_it_leaves(tmp_path: Path) -> None:
    storm = [sys.executable, "-m", "tests.chaos.storm", "--size", "smoke", "--kinds", KINDS]
    ran = subprocess.run(
        [*storm, "--keep", str(tmp_path / "kept")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-3000:]
    assert (tmp_path / "kept" / "report.html").read_text().startswith("<!doctype html>")
    evidence = read(tmp_path / "kept")
    plan = json.loads((tmp_path / "kept" / "plan.json").read_text())
    struck = [fault.kind for fault in evidence.faults if fault.kind is not None and fault.phase == "end"]
    assert sorted(struck) == sorted(each["kind"] for each in plan["schedule"])
    assert len((tmp_path / "kept" / "samples.jsonl").read_text().splitlines()) > 5

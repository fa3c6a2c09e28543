"""The checker as a program: what it prints, what it leaves, and the five ways in which it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.checker.__main__ import main
from tests.houses import ROOT
from tests.unit.chaos.folders import write
from tests.unit.chaos.story import Story


def a_death_survived(*must_judge: str) -> Story:
    story = Story(*must_judge)
    job = story.accepted().claimed()
    story.fault("sigkill")
    job.rescued().claimed("w2").intended().requested().settled()
    return story


def an_effect_twice() -> Story:
    story = a_death_survived()
    story.jobs[0].requested()
    return story


def left_in(folder: Path) -> dict[str, Any]:
    left: dict[str, Any] = json.loads((folder / "verdict.json").read_text())
    return left


def test_a_run_that_kept_every_promise_held(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, a_death_survived("I1", "I15").evidence())
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "held"
    assert any(line.startswith("I15") and "p99 s 5.2" in line for line in printed)
    left = left_in(tmp_path)
    assert (left["outcome"], left["findings"], left["tallies"]["I15"]["judged"]) == ("held", [], 1)


def test_a_run_that_broke_one_is_broken_and_the_finding_says_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = an_effect_twice()
    write(tmp_path, story.evidence())
    assert main([str(tmp_path)]) == 1
    job = story.jobs[0].id
    expected = {
        "invariant": "I3",
        "expected": "one applied effect at most",
        "found": "applied 2 times",
        "job": job,
        "key": "key-1",
        "rests_on": [f"effects.jsonl:{n}" for n in range(1, 7)],
    }
    assert expected in left_in(tmp_path)["findings"]
    printed = capsys.readouterr().out
    assert f"I3, job {job}, key key-1: expected one applied effect at most; found applied 2 times [effects" in printed
    assert printed.splitlines()[-1] == "broken"


def test_an_invariant_that_had_to_be_judged_and_was_not_makes_it_inconclusive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, a_death_survived("I1", "I6").evidence())
    assert main([str(tmp_path)]) == 2
    said = "I6: there was too little of it to judge\ninconclusive\n"
    assert capsys.readouterr().out.endswith(said)
    assert left_in(tmp_path)["vacuous"] == ["I6"]


def test_a_broken_run_is_broken_even_where_something_could_not_be_judged(tmp_path: Path) -> None:
    story = an_effect_twice()
    story.must_judge = ("I6",)
    write(tmp_path, story.evidence())
    assert main([str(tmp_path)]) == 1


def test_a_run_whose_faults_never_came_is_inconclusive(tmp_path: Path) -> None:
    story = Story()
    story.accepted().claimed().intended().requested().settled()
    write(tmp_path, story.evidence())
    assert main([str(tmp_path)]) == 2


def test_a_run_without_any_evidence_is_inconclusive(tmp_path: Path) -> None:
    write(tmp_path, Story("I1", expect_faults=False).evidence())
    assert main([str(tmp_path)]) == 2
    assert left_in(tmp_path)["vacuous"] == ["I0", "I1"]


def test_evidence_that_cannot_be_read_is_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, a_death_survived().evidence())
    with (tmp_path / "effects.jsonl").open("a") as file:
        file.write('{"at": 1}\n')
    assert main([str(tmp_path)]) == 3
    printed = capsys.readouterr().out
    assert printed.startswith("unreadable: effects.jsonl:4: fields: missing action, arrival,")
    assert left_in(tmp_path)["outcome"] == "unreadable"


def test_an_empty_folder_is_unreadable(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 3


def test_evidence_of_the_right_form_that_makes_no_sense_is_unreadable_and_not_broken(tmp_path: Path) -> None:
    story = a_death_survived()
    story.jobs[0].events[2]["data"]["crashes"] = "one"
    write(tmp_path, story.evidence())
    assert main([str(tmp_path)]) == 3


def test_a_run_that_asks_for_an_invariant_that_there_is_not_is_unreadable(tmp_path: Path) -> None:
    write(tmp_path, a_death_survived("I99").evidence())
    assert main([str(tmp_path)]) == 3


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["/nowhere"]], ids=["none", "two", "no folder"])
def test_a_wrong_call_is_told_apart_from_every_verdict(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 64
    assert capsys.readouterr().err == "usage: python -m tests.chaos.checker FOLDER\n"


def test_a_torn_line_of_a_killed_writer_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, a_death_survived().evidence())
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"at": 10000')
    assert main([str(tmp_path)]) == 0
    assert "torn lines 1" in capsys.readouterr().out


def test_it_is_a_program_of_its_own(tmp_path: Path) -> None:
    story = a_death_survived()
    evidence = replace(story.evidence(), torn={})
    write(tmp_path, evidence)
    command = [sys.executable, "-m", "tests.chaos.checker", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr, ended.stdout.splitlines()[-1]) == (0, "", "held")


def test_the_checker_knows_only_what_the_product_promises() -> None:
    """A verdict by the product's own code would be its own word."""
    program = "import sys, tests.chaos.checker.judge; print(*sorted(sys.modules))"
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    loaded = {name for name in ended.stdout.split() if name.startswith(("worker", "tasks", "producer.ledger."))}
    tables = ("approval_tables", "audit_tables", "budget_tables", "metadata", "policy_tables", "tables")
    of_tables = {f"producer.ledger.{name}" for name in tables}
    assert loaded == {"producer.ledger.states", *of_tables}

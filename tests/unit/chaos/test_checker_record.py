"""I0: evidence that contradicts itself is found out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.checker.judge import judge
from tests.chaos.evidence import Evidence
from tests.chaos.ledger_rows import Ledger
from tests.unit.chaos.story import BEGAN, Story
from tests.unit.chaos.verdicts import broken, the_finding


def told() -> Story:
    """One job, one death, one effect: its lines are 1 to 2 of the history, 1 to 3 of the effects, 1 of the faults."""
    story = Story()
    job = story.accepted().claimed()
    story.fault("sigkill")
    job.rescued().claimed("w2").intended().requested().settled()
    return story


def change(lines: list[Any], index: int, **fields: Any) -> None:
    lines[index] = replace(lines[index], **fields)


def contradictions(evidence: Evidence) -> list[str]:
    return [finding.found for finding in judge(evidence) if finding.invariant == "I0"]


@pytest.mark.parametrize("lines", ["history", "effects", "faults"])
@pytest.mark.parametrize("at", [BEGAN - 1, BEGAN + 1_000_000], ids=["before", "after"])
def test_a_line_from_outside_the_run(lines: str, at: float) -> None:
    story = told()
    change(getattr(story, lines), 0, at=at)
    assert str(at) in contradictions(story.evidence())


def test_a_run_that_ends_before_it_began() -> None:
    evidence = told().evidence()
    turned = replace(evidence, run=replace(evidence.run, ended=BEGAN - 1))
    assert f"{BEGAN} to {BEGAN - 1}" in contradictions(turned)


def test_a_second_snapshot_that_is_the_earlier_one() -> None:
    evidence = told().evidence()
    first = evidence.ledger.first
    earlier = replace(first, at=first.at - 1)
    assert contradictions(replace(evidence, ledger=Ledger(first, earlier))) == [f"{first.at}, {earlier.at}"]


def test_an_answer_to_nothing() -> None:
    story = told()
    del story.history[0]
    assert the_finding(story, "I0").endswith("ok for chaos.keyed key-1")


def test_an_answer_to_another_request() -> None:
    story = told()
    change(story.history, 1, key="key-2")
    assert "ok for chaos.keyed key-2" in the_finding(story, "I0")


def test_an_answer_before_its_question() -> None:
    story = told()
    change(story.history, 1, at=BEGAN)
    assert "I0" in broken(story)


def test_two_answers_to_one_question() -> None:
    story = told()
    story.history.append(story.history[1])
    assert "I0" in broken(story)


def test_a_call_that_is_made_twice() -> None:
    story = told()
    story.history.insert(0, story.history[0])
    assert "I0" in broken(story)


def test_a_request_of_which_nothing_is_known() -> None:
    story = told()
    story.effects[:] = [replace(line, arrival=2) for line in story.effects]
    assert the_finding(story, "I0") == "arrivals count from 1 without a gap / missing: [1]"


@pytest.mark.parametrize(
    ("phases", "found"),
    [
        (["applied", "answered"], "applied, answered"),
        (["arrived", "answered", "applied"], "arrived, answered, applied"),
        (["arrived", "applied", "deduped"], "arrived, applied, deduped"),
        (["arrived", "answered", "dropped"], "arrived, answered, dropped"),
        (["arrived", "applied", "applied"], "arrived, applied, applied"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_request_that_goes_a_way_that_there_is_not(phases: list[Any], found: str) -> None:
    story = told()
    story.effects[:] = [replace(line, phase=phase) for line, phase in zip(story.effects, phases, strict=False)]
    assert found in contradictions(story.evidence())


def test_a_request_that_ends_before_it_arrives() -> None:
    story = told()
    change(story.effects, 2, at=story.effects[0].at - 0.001)
    assert contradictions(story.evidence()) == ["arrived, applied, answered"]


@pytest.mark.parametrize("field", ["mode", "action", "ref", "key", "body_hash", "token"])
def test_a_request_whose_lines_disagree(field: str) -> None:
    story = told()
    other = "0" * 64 if field == "body_hash" else "unsafe" if field == "mode" else "other"
    change(story.effects, 1, **{field: other})
    assert "they differ" in contradictions(story.evidence())


def test_a_request_of_another_effect_class_than_its_action_s() -> None:
    story = told()
    story.effects[:] = [replace(line, mode="unsafe") for line in story.effects]
    assert the_finding(story, "I0").endswith("chaos.keyed is keyed and its request unsafe")


def test_a_fault_that_ends_and_never_began() -> None:
    story = told()
    story.fault("sigstop", phase="end")
    assert the_finding(story, "I0").endswith("sigstop of w1 ends and never began")


def test_a_fault_in_a_run_that_has_none() -> None:
    story = told()
    story.expect_faults = False
    assert the_finding(story, "I0") == "a run without faults / 1 faults"


def test_a_torn_line_although_nobody_was_killed() -> None:
    story = told()
    change(story.faults, 0, fault="sigstop")
    story.torn = {"history.jsonl": 1}
    assert the_finding(story, "I0").endswith("a torn line, and nobody was killed")


def test_an_action_that_the_run_does_not_declare() -> None:
    story = told()
    story.jobs[0].row["action"] = "chaos.other"
    assert the_finding(story, "I0").endswith("chaos.other is not declared")

"""I1 and I2: what was accepted and is lost, and what is there and was never asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from producer.ledger.states import State
from tests.unit.chaos.story import JobStory, Story
from tests.unit.chaos.verdicts import broken, the_finding


def done(action: str = "chaos.keyed") -> Story:
    story = Story(expect_faults=False)
    story.accepted(action).claimed().intended().requested().settled()
    return story


def pure() -> Story:
    story = Story(expect_faults=False)
    story.accepted("chaos.pure").claimed().intended().settled()
    return story


# ---- I1 --------------------------------------------------------------------------------------------------------


def test_a_job_that_was_answered_for_and_is_not_there() -> None:
    story = pure()
    del story.jobs[0]
    assert broken(story) == {"I1"}
    assert the_finding(story, "I1") == "one job for a key that was accepted / none"


def test_an_answer_that_names_a_job_that_is_not_the_key_s() -> None:
    story = pure()
    other = "00000000-0000-0000-0000-000000000001"
    story.history[1] = replace(story.history[1], job_id=other)
    assert broken(story) == {"I1"}
    assert the_finding(story, "I1").startswith(f"the job that was named / the answer names {other}")


def test_a_key_that_stands_for_two_jobs() -> None:
    story = pure()
    JobStory(story, "chaos.pure", "key-1").claimed().intended().settled()
    assert broken(story) == {"I1"}
    assert the_finding(story, "I1").startswith("one job for a key that was accepted / ")


def test_two_jobs_for_a_key_of_which_nobody_knows_whether_it_was_accepted() -> None:
    story = Story(expect_faults=False)
    call = story.asked("chaos.pure", "k")
    for _ in range(2):
        JobStory(story, "chaos.pure", "k").claimed().intended().settled()
    story.unanswered(call, "chaos.pure", "k")
    assert the_finding(story, "I1").startswith("one job at most / ")


def test_a_key_that_two_calls_were_told_that_they_created() -> None:
    story = pure()
    story.answered(story.asked("chaos.pure", "key-1"), story.jobs[0], "created")
    assert broken(story) == {"I1"}
    assert the_finding(story, "I1").endswith("2 calls were told that they created it")


@pytest.mark.parametrize("leave", ["queued", "claimed", "running", "waiting"])
def test_a_job_that_is_still_on_its_way_after_the_drain(leave: str) -> None:
    story = Story(expect_faults=False)
    job = story.accepted("chaos.pure")
    steps: dict[str, list[Any]] = {
        "queued": [],
        "claimed": [job.claimed],
        "running": [job.claimed, job.intended],
        "waiting": [job.claimed, job.intended, job.parked],
    }
    for step in steps[leave]:
        step()
    assert the_finding(story, "I1").endswith(f"it is {leave}")


def test_a_request_that_was_never_answered_may_have_left_no_job() -> None:
    story = Story(expect_faults=False)
    story.unanswered(story.asked("chaos.pure", "k"), "chaos.pure", "k")
    assert broken(story) == set()


# ---- I2: jobs --------------------------------------------------------------------------------------------------


def test_a_job_that_nobody_asked_for() -> None:
    story = pure()
    JobStory(story, "chaos.pure", "out of nowhere").claimed().intended().settled()
    assert broken(story) == {"I2"}
    assert the_finding(story, "I2") == "somebody asked for it and was not refused / nobody asked"


def test_a_job_whose_request_was_refused() -> None:
    story = Story(expect_faults=False)
    call = story.asked("chaos.pure", "k")
    JobStory(story, "chaos.pure", "k").claimed().intended().settled()
    story.refused(call, "chaos.pure", "k")
    assert the_finding(story, "I2").endswith("each was refused")


def test_a_job_that_was_accepted_before_it_was_asked_for() -> None:
    story = Story(expect_faults=False)
    job = JobStory(story, "chaos.pure", "k")
    story.answered(story.asked("chaos.pure", "k"), job)
    job.claimed().intended().settled()
    assert the_finding(story, "I2").startswith("it is accepted after it was asked for")


def test_a_job_for_another_request_than_was_made() -> None:
    story = pure()
    story.history[0] = replace(story.history[0], fingerprint="0" * 64)
    assert broken(story) == {"I2"}
    assert the_finding(story, "I2").startswith("the request that was made")


def test_a_job_that_was_run_anew() -> None:
    story = pure()
    story.jobs[0].row["rerun"] = 1
    assert the_finding(story, "I2").endswith("rerun 1")


@pytest.mark.parametrize("announced", [None, 1], ids=["none", "one of two"])
def test_more_follow_ups_than_their_parent_asked_for(announced: int | None) -> None:
    story = pure()
    parent = story.jobs[0]
    if announced is not None:
        parent.events[-1]["data"]["follow_ups"] = announced
    for number in range((announced or 0) + 1):
        JobStory(story, "chaos.pure", f"child-{number}", parent).claimed().intended().settled()
    assert broken(story) == {"I2"}


def test_a_follow_up_of_a_parent_that_did_not_succeed() -> None:
    story = Story(expect_faults=False)
    parent = story.accepted("chaos.pure").claimed().intended().settled(State.FAILED)
    parent.events[-1]["data"]["follow_ups"] = 1
    JobStory(story, "chaos.pure", "child", parent).claimed().intended().settled()
    assert broken(story) == {"I2"}


# ---- I2: effects -----------------------------------------------------------------------------------------------


def test_an_effect_before_its_intent() -> None:
    story = Story(expect_faults=False)
    story.accepted().claimed().requested(attempt=1).intended().settled()
    assert broken(story) == {"I2"}
    assert the_finding(story, "I2").startswith("an intent of attempt 1 before its request arrives / the intent at ")


def test_an_effect_without_an_intent() -> None:
    story = Story(expect_faults=False)
    job = story.accepted().claimed()
    job.requested(attempt=1)
    job.parked("worker", delay=0.0).claimed().settled(State.EXPIRED)
    assert the_finding(story, "I2") == "an intent of attempt 1 before its request arrives / none"


def test_an_effect_of_an_attempt_that_only_another_s_intent_covers() -> None:
    story = Story(expect_faults=False)
    story.accepted().claimed().intended().requested(attempt=2).settled()
    assert broken(story) == {"I2"}


def test_a_request_that_does_not_say_its_attempt_needs_any_intent() -> None:
    story = done()
    story.effects[:] = [replace(line, attempt=None) for line in story.effects]
    assert broken(story) == set()


def test_an_effect_of_a_job_that_is_not_in_the_ledger() -> None:
    story = done()
    other = "00000000-0000-0000-0000-000000000001"
    story.effects[:] = [replace(line, ref=other) for line in story.effects]
    assert the_finding(story, "I2") == f"a request of a job in the ledger, by its own action / chaos.keyed for {other}"


def test_an_effect_by_another_action_than_the_job_s() -> None:
    story = done("chaos.unsafe")
    story.effects[:] = [replace(line, action="chaos.keyed", mode="keyed") for line in story.effects]
    assert "I2" in broken(story)


def test_a_request_with_another_body_than_was_accepted() -> None:
    story = done()
    story.jobs[0].decision["params"] = {"n": 7}
    assert broken(story) == {"I2"}
    assert the_finding(story, "I2").startswith("the request that was accepted is the one that is made / body ")


def test_a_downstream_key_that_is_not_the_job_s() -> None:
    story = done()
    story.effects[:] = [replace(line, key="someone:0") for line in story.effects]
    assert broken(story) == {"I2"}


def test_a_read_of_a_pure_action_needs_no_durable_intent() -> None:
    story = Story(expect_faults=False)
    story.accepted("chaos.pure").claimed().requested("answered", attempt=1).intended().settled()
    assert broken(story) == set()


# ---- follow-ups ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("announced", "made", "finds"), [(2, 1, {"I1"}), (1, 2, {"I2"}), (2, 2, set())])
def test_follow_ups_are_as_many_as_the_success_of_their_parent_asked_for(
    announced: int, made: int, finds: set[str]
) -> None:
    story = Story(expect_faults=False)
    parent = story.accepted("chaos.pure").claimed().intended().settled()
    parent.events[-1]["data"]["follow_ups"] = announced
    for number in range(made):
        JobStory(story, "chaos.pure", f"{parent.id}:{number}", parent).claimed().intended().settled()
    assert broken(story) == finds


def test_a_follow_up_that_is_not_there_is_found_with_its_parent() -> None:
    story = pure()
    story.jobs[0].events[-1]["data"]["follow_ups"] = 2
    assert the_finding(story, "I1") == "2 follow-ups, accepted with the outcome that asked for them / 0 of them"

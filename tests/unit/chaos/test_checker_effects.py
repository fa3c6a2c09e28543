"""I3 to I6: effects that happened twice, or not, or that nobody is told of; and doubt without a reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from producer.ledger.states import State
from tests.chaos.evidence import Phase
from tests.unit.chaos.story import JobStory, Story
from tests.unit.chaos.verdicts import broken, figure, findings, the_finding

ONCE = ["chaos.keyed", "chaos.verifiable", "chaos.unsafe"]
NOT_PURE = [*ONCE, "chaos.idempotent"]


def intended(story: Story, action: str) -> JobStory:
    return story.accepted(action).claimed().intended()


def rescued_after(story: Story, job: JobStory, to: State = State.WAITING) -> JobStory:
    story.fault("sigkill")
    return job.rescued(to)


# ---- I3 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ONCE)
def test_an_effect_that_is_applied_twice(action: str) -> None:
    story = Story()
    job = rescued_after(story, intended(story, action).requested("applied", "dropped"))
    job.claimed("w2").intended().requested().settled()
    assert {"I3", "I4"} <= broken(story)
    assert "one applied effect at most / applied 2 times" in {
        f"{finding.expected} / {finding.found}" for finding in findings(story, "I3")
    }


def test_a_state_may_be_put_twice() -> None:
    story = Story()
    job = rescued_after(story, intended(story, "chaos.idempotent").requested("applied", "dropped"))
    job.claimed("w2").intended().requested().settled()
    assert broken(story) == set()


def test_a_state_that_is_put_twice_and_differs() -> None:
    story = Story()
    job = rescued_after(story, intended(story, "chaos.idempotent").requested("applied", "dropped"))
    job.claimed("w2").intended().requested().settled()
    story.effects[3:] = [replace(line, body_hash="0" * 64) for line in story.effects[3:]]
    assert the_finding(story, "I3") == "every request of the job with the same body / bodies differ"


def test_a_key_for_each_attempt() -> None:
    """The second effect did not happen this time, but the key would not have stopped it."""
    story = Story()
    job = intended(story, "chaos.keyed")
    job.requested("dropped", key=f"{job.id}:attempt-1")
    rescued_after(story, job).claimed("w2").intended().requested(key=f"{job.id}:attempt-2").settled()
    assert broken(story) == {"I3"}
    assert the_finding(story, "I3").startswith("every request of the job under the same downstream key")


def test_a_keyed_request_without_its_key() -> None:
    story = Story(expect_faults=False)
    intended(story, "chaos.keyed").requested().settled()
    story.effects[:] = [replace(line, key=None) for line in story.effects]
    assert broken(story) == {"I3"}


@pytest.mark.parametrize("first", [("dropped",), ("applied", "dropped"), ()], ids=["dropped", "applied", "lost"])
def test_an_unsafe_request_that_is_repeated_although_nobody_knows_what_became_of_it(first: Any) -> None:
    story = Story()
    job = intended(story, "chaos.unsafe").requested(*first)
    if not first:
        del story.effects[1:]
    rescued_after(story, job).claimed("w2").intended().requested("answered", error=True).settled(State.DEAD)
    said = {finding.expected for finding in findings(story, "I3")}
    assert said == {"one request at most, whose outcome is unknown"}


def test_an_unsafe_request_that_came_to_nothing_may_be_repeated() -> None:
    story = Story(expect_faults=False)
    job = intended(story, "chaos.unsafe").requested("answered", error=True).parked("retry")
    job.claimed().intended().requested().settled()
    assert broken(story) == set()


def test_an_unsafe_request_that_was_answered_with_an_error_after_its_effect_may_not() -> None:
    story = Story(expect_faults=False)
    job = intended(story, "chaos.unsafe").requested("applied", "answered", error=True).parked("retry")
    job.claimed().intended().requested("answered", error=True).settled(State.DEAD)
    assert "I3" in broken(story)


@pytest.mark.parametrize(("verdict", "kind"), [("retry", "resolved"), ("did_not_happen", "verified")])
def test_an_unsafe_request_may_be_repeated_on_the_word_of_who_looked(verdict: str, kind: str) -> None:
    story = Story()
    job = rescued_after(story, intended(story, "chaos.unsafe").requested("dropped"), State.IN_DOUBT)
    job.resolved(verdict, State.WAITING, kind=kind)
    job.row["crashes"] = 0 if kind == "resolved" else 1
    job.claimed().intended().requested().settled()
    assert broken(story) == set()


def test_an_unsafe_request_may_not_be_repeated_while_the_look_leaves_it_in_doubt() -> None:
    story = Story()
    job = rescued_after(story, intended(story, "chaos.unsafe").requested("dropped"), State.IN_DOUBT)
    job.resolved("did_not_happen", State.IN_DOUBT, kind="verified").requested()
    assert broken(story) == {"I3"}


def test_an_unsafe_request_may_not_be_repeated_where_the_look_found_out_nothing() -> None:
    story = Story()
    job = rescued_after(story, intended(story, "chaos.unsafe").requested("dropped"), State.IN_DOUBT)
    job.resolved("unknown", State.WAITING, kind="verified")
    job.row["crashes"] = 1
    job.claimed().intended().requested().settled()
    assert broken(story) == {"I3"}


# ---- I4 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", NOT_PURE)
def test_a_success_without_its_effect(action: str) -> None:
    story = Story(expect_faults=False)
    intended(story, action).requested("answered").settled()
    assert broken(story) == {"I4"}
    assert the_finding(story, "I4") == "a success has its one effect / applied 0 times"


def test_a_success_with_another_result_than_the_world_s() -> None:
    story = Story(expect_faults=False)
    intended(story, "chaos.keyed").requested().settled().decision["result"] = {"ok": False}
    assert broken(story) == {"I4"}
    assert the_finding(story, "I4").startswith("the result that the world answered")


def test_a_success_with_an_error_on_record() -> None:
    story = Story(expect_faults=False)
    intended(story, "chaos.keyed").requested().settled().decision["error"] = {"type": "Unknown"}
    assert the_finding(story, "I4") == "a success without an error / Unknown"


def test_a_person_s_result_is_their_own_word() -> None:
    story = Story()
    job = rescued_after(story, intended(story, "chaos.unsafe").requested("applied", "dropped"), State.IN_DOUBT)
    job.resolved("happened", State.SUCCEEDED).decision["result"] = "number 7, says the clerk"
    assert broken(story) == set()
    job.noted("replayed")  # somebody asks for it once more
    assert broken(story) == set()


def test_a_person_who_says_that_it_happened_and_is_wrong() -> None:
    story = Story()
    job = rescued_after(story, intended(story, "chaos.unsafe").requested("dropped"), State.IN_DOUBT)
    job.resolved("happened", State.SUCCEEDED)
    assert broken(story) == {"I4"}


def test_a_fallback_beside_the_effect() -> None:
    story = Story(expect_faults=False)
    intended(story, "chaos.keyed").requested().settled(State.DEGRADED)
    assert broken(story) == {"I4"}


def superseded(story: Story, *phases: Phase, end: State = State.SUCCEEDED) -> tuple[JobStory, JobStory]:
    """A job that was degraded, and what brought its true result."""
    job = intended(story, "chaos.keyed").requested(*phases, error=True).settled(State.DEGRADED)
    bringing = intended(story, "chaos.keyed").requested().settled(end)
    return job.superseded(bringing), bringing


def test_a_fallback_that_gave_way_to_a_true_result_is_as_it_should_be() -> None:
    story = Story(expect_faults=False)
    superseded(story, "dropped")
    assert broken(story) == set()


def test_a_fallback_beside_the_effect_that_gave_way_to_another() -> None:
    story = Story(expect_faults=False)
    superseded(story, "applied")
    assert "I4" in broken(story)


def test_a_fallback_that_gave_way_to_what_did_not_succeed() -> None:
    story = Story(expect_faults=False)
    superseded(story, "dropped", end=State.DEGRADED)
    assert "I4" in broken(story)


def test_a_fallback_that_gave_way_to_another_result_than_was_brought() -> None:
    story = Story(expect_faults=False)
    job, _ = superseded(story, "dropped")
    job.decision["result"] = {"another": 1}
    assert broken(story) == {"I4"}


def test_a_degraded_job_that_succeeds_by_itself() -> None:
    story = Story(expect_faults=False)
    job = intended(story, "chaos.keyed").requested("dropped", error=True).settled(State.DEGRADED)
    job.row |= {"lease_owner": "w1"}
    job.settled()
    assert "I7" in broken(story)


# ---- I5 and I6 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", NOT_PURE)
@pytest.mark.parametrize("end", [State.FAILED, State.DEAD])
def test_a_job_that_was_given_up_although_its_effect_happened(action: str, end: State) -> None:
    story = Story(expect_faults=False)
    intended(story, action).requested("applied", "dropped").settled(end)
    assert broken(story) == {"I5", "I6"}
    assert the_finding(story, "I5").endswith(f"it is {end}, and the effect happened")


@pytest.mark.parametrize("end", [State.CANCELLED, State.EXPIRED])
def test_a_job_that_waits_again_and_is_ended_as_if_nothing_had_happened(end: State) -> None:
    story = Story()
    job = rescued_after(story, intended(story, "chaos.keyed").requested("applied", "dropped"))
    job.row["maybe_happened"] = False
    if end is State.CANCELLED:
        job.cancelled()
    else:
        job.row["deadline_at"] = story.now
        job.claimed().settled(State.EXPIRED)
    assert broken(story) == {"I5", "I6"}


@pytest.mark.parametrize("missing", ["who", "reason"])
def test_a_job_in_doubt_that_is_given_up_by_nobody_or_for_no_reason(missing: str) -> None:
    story = Story()
    job = rescued_after(story, intended(story, "chaos.unsafe").requested("applied", "dropped"), State.IN_DOUBT)
    job.resolved("abandon", State.DEAD).events[-1]["data"][missing] = None
    assert broken(story) == {"I5", "I6"}


def test_an_effect_that_is_forgotten_while_the_job_waits() -> None:
    story = Story()
    rescued_after(story, intended(story, "chaos.keyed").requested("applied", "dropped"))
    assert broken(story) == {"I1", "I6"}


def test_doubt_without_an_intent() -> None:
    story = Story()
    rescued_after(story, story.accepted("chaos.unsafe").claimed(), State.IN_DOUBT).row["maybe_happened"] = True
    assert broken(story) == {"I6"}
    assert the_finding(story, "I6").endswith("it never had an intent")


def test_doubt_of_an_action_without_an_effect() -> None:
    story = Story()
    rescued_after(story, intended(story, "chaos.pure"), State.IN_DOUBT).row["maybe_happened"] = True
    assert broken(story) == {"I6"}
    assert the_finding(story, "I6").endswith("its action is pure")


def test_doubt_in_a_run_without_faults() -> None:
    story = Story(expect_faults=False)
    intended(story, "chaos.unsafe").requested("applied", "dropped").settled(State.IN_DOUBT, maybe_happened=True)
    assert broken(story) == {"I6"}
    assert the_finding(story, "I6") == "no doubt in a run without faults / it came into doubt"


def test_doubt_without_a_fault_behind_it() -> None:
    story = Story()
    story.fault("sigkill")  # long before
    intended(story, "chaos.unsafe").requested().settled(State.IN_DOUBT, maybe_happened=True)
    assert broken(story) == {"I6"}
    assert the_finding(story, "I6").startswith("a fault behind every doubt")


def test_a_fault_that_began_before_and_ended_meanwhile_is_reason_enough() -> None:
    story = Story()
    story.fault("sigstop")
    job = intended(story, "chaos.unsafe").requested()
    story.fault("sigstop", phase="end")
    job.settled(State.IN_DOUBT, maybe_happened=True)
    assert broken(story) == set()


def test_a_fault_between_the_claim_and_its_intent_is_reason_enough() -> None:
    story = Story()
    job = story.accepted("chaos.unsafe").claimed()
    story.fault("sigkill")
    story.fault("sigkill", phase="end")
    job.intended().rescued(State.IN_DOUBT).row["maybe_happened"] = True
    assert broken(story) == set()


def test_a_fault_before_the_claim_is_none_and_the_last_of_them_is_named() -> None:
    story = Story()
    job = story.accepted("chaos.unsafe")
    story.fault("sigstop")
    story.fault("sigstop", phase="end")
    job.claimed().intended().rescued(State.IN_DOUBT).row["maybe_happened"] = True
    assert broken(story) == {"I6"}
    assert "before it, sigstop of" in the_finding(story, "I6")


def test_a_fault_that_lasted_from_before_the_intent_until_after_the_doubt_is_reason_enough() -> None:
    story = Story()
    story.fault("renewal_held")
    intended(story, "chaos.unsafe").requested().settled(State.IN_DOUBT, maybe_happened=True)
    story.fault("renewal_held", phase="end")
    assert broken(story) == set()


def test_doubt_that_the_row_does_not_share() -> None:
    story = Story()
    job = rescued_after(story, intended(story, "chaos.unsafe").requested("applied", "dropped"), State.IN_DOUBT)
    job.row["maybe_happened"] = False
    assert broken(story) == {"I6"}


def test_how_often_doubt_was_right_is_reported() -> None:
    story = Story()
    for phases in (("applied", "dropped"), ("dropped",), ("applied", "dropped")):
        rescued_after(story, intended(story, "chaos.unsafe").requested(*phases), State.IN_DOUBT)
    assert (figure(story, "I6", "ever in doubt"), figure(story, "I6", "of these happened")) == (3, 2)


@pytest.mark.parametrize("action", ["chaos.pure", "chaos.unsafe"])
def test_a_result_that_was_written_although_the_job_has_not_succeeded(action: str) -> None:
    story = Story()
    job = story.accepted(action).claimed().intended()
    story.fault("sigstop")
    job.rescued(State.IN_DOUBT if action == "chaos.unsafe" else State.DEAD)
    job.decision["result"] = {"ok": True}
    assert [finding.expected for finding in findings(story, "I4")] == ["no result without a success"]


def timed_out(after: float, *, timeout: float = 0.5, waited: float = 0.0) -> Story:
    """An attempt with so much time comes into doubt so long after its request, whose answer comes later still.

    Its intent had waited to be written.
    """
    story = Story()
    job = story.accepted("chaos.unsafe").claimed()
    story.tick(waited)
    job.intended()
    job.events[-1]["data"]["timeout"] = timeout
    job.requested("applied")
    story.tick(after)
    job.settled(State.IN_DOUBT, maybe_happened=True)
    late = replace(story.effects[-1], phase="answered", at=story.tick(1.0), line=len(story.effects) + 1)
    story.effects.append(late)
    return story


def test_doubt_of_an_attempt_that_the_world_did_not_answer_in_its_time_has_a_reason() -> None:
    assert broken(timed_out(0.6)) == set()


def test_the_time_for_which_an_intent_waited_to_be_written_is_the_attempts() -> None:
    assert broken(timed_out(0.2, waited=0.4)) == set()


@pytest.mark.parametrize(("after", "found"), [(0.6, set()), (0.1, {"I6"})])
def test_doubt_of_an_attempt_whose_request_never_came_has_a_reason_once_its_time_is_over(
    after: float, found: set[str]
) -> None:
    story = timed_out(after)
    story.effects.clear()
    assert broken(story) == found


def test_doubt_of_an_attempt_that_had_time_left_has_none() -> None:
    assert the_finding(timed_out(0.1), "I6").startswith("a fault behind every doubt")


def answered(timeout: float, after: float) -> Story:
    """As before, but the answer came so long after the request."""
    story = timed_out(timeout + 0.1, timeout=timeout)
    story.effects[-1] = replace(story.effects[-1], at=story.effects[-2].at + after)
    return story


def test_doubt_of_an_attempt_that_was_answered_in_its_time_has_none() -> None:
    assert the_finding(answered(5.0, 0.1), "I6").startswith("a fault behind every doubt")


def test_doubt_of_an_attempt_whose_answer_came_as_its_time_was_over_has_a_reason() -> None:
    assert broken(answered(5.0, 4.9)) == set()

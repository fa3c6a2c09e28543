"""I8 and I9: writes of those who had lost the job, and jobs that two had at a time or that were tried for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest

from producer.ledger.states import State
from tests.chaos.checker.findings import Outcome
from tests.chaos.checker.judge import verdict_on
from tests.unit.chaos.story import LEASE_SECONDS, JobStory, Story
from tests.unit.chaos.verdicts import broken, figure, findings, judged, the_finding


def taken_over() -> tuple[Story, JobStory]:
    """The second worker has it, under fence 3; event 5 is its intent."""
    story = Story()
    job = story.accepted("chaos.pure").claimed()
    story.fault("sigstop")
    return story, job.rescued().claimed("w2").intended()


# ---- I8 --------------------------------------------------------------------------------------------------------


def test_an_outcome_accepted_from_who_had_lost_the_job() -> None:
    story, job = taken_over()
    job.settled()
    job.events[-1] |= {"fence": 1, "worker": "w1"}
    assert broken(story) == {"I8"}
    assert the_finding(story, "I8") == "a write under fence 3 / accepted under fence 1"


def test_an_intent_accepted_from_who_had_lost_the_job() -> None:
    story, job = taken_over()
    job.settled()
    job.events[4] |= {"fence": 1, "worker": "w1"}
    assert broken(story) == {"I8"}


def test_an_outcome_under_the_right_fence_from_another_worker() -> None:
    """As after a crash of Postgres that forgot a claim: its fence is given anew."""
    story, job = taken_over()
    job.settled()
    job.events[-1]["worker"] = "w1"
    assert the_finding(story, "I8") == "a write by the owner, w2 / accepted from w1"


def test_an_outcome_of_a_job_that_nobody_had() -> None:
    story, job = taken_over()
    job.rescued()
    job.row["state"] = "running"
    job.settled()
    job.events[-1] |= {"worker": "w1"}
    assert "a write by the owner, whom the job has not" in {each.expected for each in findings(story, "I8")}


@pytest.mark.parametrize("index", [3, 2], ids=["claim", "rescue"])
def test_a_fence_that_does_not_rise(index: int) -> None:
    story, job = taken_over()
    job.settled()
    job.events[index]["fence"] = 1 if index == 2 else 2
    assert "I8" in broken(story)
    assert any(each.expected.startswith("a fence above") for each in findings(story, "I8"))


def test_a_late_result_under_a_fence_that_was_never_given() -> None:
    story, job = taken_over()
    job.settled().late(fence=4)
    assert the_finding(story, "I8") == "a late result under fence 3 or lower / fence 4"


def test_a_late_result_under_the_fence_that_was_given_anew_is_one() -> None:
    story, job = taken_over()
    job.settled().late(fence=3)
    assert broken(story) == set()


@pytest.mark.parametrize(
    ("fault", "fence", "expected"),
    [("postgres_kill", 4, set()), ("postgres_kill", 5, {"I8"}), ("postgres_restart", 4, {"I8"})],
    ids=["of a claim that a crash forgot", "of one that nobody can have had", "a restart forgets nothing"],
)
def test_a_late_result_under_the_next_fence(fault: str, fence: int, expected: set[str]) -> None:
    story, job = taken_over()
    story.fault(fault, target="postgres")
    job.late(fence=fence).settled()
    assert broken(story) == expected


def test_a_late_result_of_a_claim_that_a_crash_forgot_of_a_job_that_others_have_ended_since() -> None:
    story = Story()
    job = story.accepted("chaos.pure")
    story.fault("postgres_immediate", target="postgres")
    job.cancelled()
    assert broken(story) == set()
    job.late(fence=1)
    assert broken(story) == set()


def test_a_row_with_an_older_fence_than_its_events() -> None:
    story, job = taken_over()
    job.settled().row["fence"] = 2
    assert broken(story) == {"I7", "I8"}


def test_a_late_result_that_its_worker_was_told_of_and_that_is_not_on_record() -> None:
    story, job = taken_over()
    job.settled()
    story.logged("attempt.late", job_id=job.id)
    assert broken(story) == {"I8"}


def test_late_results_are_counted_and_change_nothing() -> None:
    story, job = taken_over()
    job.settled().late(fence=1)
    story.logged("attempt.late", job_id=job.id)
    assert broken(story) == set()
    assert (figure(story, "I8", "late results on record"), figure(story, "I8", "refused writers in the logs")) == (1, 1)


def test_whose_job_was_taken_over_is_a_writer_that_was_refused_also_where_its_ring_named_no_other() -> None:
    story, job = taken_over()
    job.settled()
    story.logged(f"Task chaos.keyed[{job.id}] raised unexpected: LeaseLost('job {job.id} was taken over')")
    assert figure(story, "I8", "refused writers in the logs") == 1


@pytest.mark.parametrize("late", [True, False])
def test_a_long_run_that_stopped_workers_proves_nothing_unless_one_of_them_came_back_late(late: bool) -> None:  # noqa: FBT001
    story, job = taken_over()
    job.settled()
    if late:
        job.late(fence=1)
    story.must_judge = ("I8",)
    evidence = story.evidence()
    verdict = verdict_on(replace(evidence, run=replace(evidence.run, kind="run")))
    assert verdict.outcome is (Outcome.HELD if late else Outcome.INCONCLUSIVE)


# ---- I9 --------------------------------------------------------------------------------------------------------


def test_claims_are_judged_and_crashes_counted() -> None:
    story, job = taken_over()
    job.settled()
    assert (judged(story, "I9"), figure(story, "I9", "crashes")) == (2, 1)


def test_two_claims_at_a_time() -> None:
    story = Story(expect_faults=False)
    story.accepted("chaos.pure").claimed("w1").claimed("w2").intended().settled()
    assert broken(story) == {"I7", "I9"}
    assert the_finding(story, "I9") == "no claim while w1 has it / w2 claims"


def test_a_claim_at_a_moment_at_which_the_last_one_had_not_ended() -> None:
    story = Story(expect_faults=False)
    job = story.accepted("chaos.pure").claimed("w1").intended().parked("retry").claimed("w2").intended().settled()
    job.events[4]["at"] = job.events[3]["at"] - 0.05
    assert {"I9", "I13"} <= broken(story)


@pytest.mark.parametrize("after_the_intent", [True, False])
def test_a_job_taken_from_a_worker_whose_lease_held(after_the_intent: bool) -> None:  # noqa: FBT001
    story = Story()
    job = story.accepted("chaos.pure").claimed()
    story.tick(LEASE_SECONDS - 1)
    if after_the_intent:
        job.intended()
    story.fault("sigstop")
    job.rescued(after=2.0 if after_the_intent else 0.1).claimed("w2").intended().settled()
    assert broken(story) == {"I9"}
    assert the_finding(story, "I9").startswith("a lease of 5.0 s before others take over / taken over after ")


def test_a_lease_that_was_renewed_may_last_longer() -> None:
    story = Story()
    job = story.accepted("chaos.pure").claimed().intended()
    story.fault("sigkill")
    job.rescued(after=3 * LEASE_SECONDS).claimed("w2").intended().settled()
    assert findings(story, "I9") == []


def tries(job: JobStory, times: int) -> JobStory:
    for _ in range(times):
        job.claimed().intended().parked("retry")
    return job


def test_more_attempts_than_the_policy_allows() -> None:
    story = Story(expect_faults=False)
    tries(story.accepted("chaos.pure"), 4).claimed().intended().settled()
    assert broken(story) == {"I9"}
    assert the_finding(story, "I9") == "4 attempts at most, by 3 retries, 0 crashes and 0 verdicts / 5 attempts"


def test_as_many_as_it_allows() -> None:
    story = Story(expect_faults=False)
    tries(story.accepted("chaos.pure"), 3).claimed().intended().settled()
    assert broken(story) == set()


def test_a_crash_is_no_failure_of_the_job_and_allows_one_more() -> None:
    story = Story()
    job = tries(story.accepted("chaos.pure"), 3).claimed().intended()
    story.fault("sigkill")
    job.rescued().claimed("w2").intended().settled()
    assert broken(story) == set()


@pytest.mark.parametrize(("kind", "allowed"), [("resolved", True), ("verified", False)])
def test_a_person_s_word_allows_one_more_and_a_look_does_not(kind: str, *, allowed: bool) -> None:
    story = Story()
    job = tries(story.accepted("chaos.unsafe"), 3).claimed().intended().requested("dropped")
    job.settled(State.IN_DOUBT, maybe_happened=True)
    story.fault("sigkill")
    job.resolved("did_not_happen", State.WAITING, kind=kind).claimed().intended().requested().settled()
    assert ("I9" in broken(story)) != allowed


def test_attempts_hidden_from_the_row_are_seen_in_the_history() -> None:
    story = Story(expect_faults=False)
    job = tries(story.accepted("chaos.pure"), 4).claimed().intended().settled()
    job.row["attempt"] = 4
    assert "I9" in broken(story)


def test_a_job_that_takes_down_more_workers_than_it_may() -> None:
    story = Story()
    job = story.accepted("chaos.pure")
    for _ in range(3):
        job.claimed().intended()
        story.fault("sigkill")
        job.rescued()
    job.claimed().intended().settled()
    assert broken(story) == {"I9"}
    assert the_finding(story, "I9") == "no further try after 3 crashes / tried again after crash 3"


def test_more_crashes_than_the_cap() -> None:
    story = Story(expect_faults=False)
    story.accepted("chaos.pure").claimed().intended().settled(State.DEAD).row["crashes"] = 4
    assert {"I7", "I9"} <= broken(story)

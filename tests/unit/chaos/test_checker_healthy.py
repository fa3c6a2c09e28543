"""A run in which much went wrong and every promise was kept: the checker finds nothing, and had enough to look at."""

from __future__ import annotations

import pytest

from producer.ledger.states import State
from tests.chaos.checker.findings import Outcome
from tests.chaos.checker.judge import INVARIANTS, judge, verdict_on
from tests.unit.chaos.story import JobStory, Story
from tests.unit.chaos.verdicts import broken, judged


def healthy() -> Story:
    story = Story(*INVARIANTS)
    plain(story)
    deaths(story)
    doubts(story)
    ends(story)
    gated(story)
    story.requests_in_time = True
    return story


def plain(story: Story) -> None:
    story.accepted("chaos.pure").claimed().intended().settled()
    story.accepted("chaos.idempotent").claimed().intended().requested().settled()
    story.accepted("chaos.keyed").claimed().intended().parked("retry").claimed("w2").intended().requested().settled()
    asked_again(story)
    with_follow_ups(story)
    in_turn(story)


def asked_again(story: Story) -> None:
    first = story.asked("chaos.unsafe", "asked-twice")
    job = JobStory(story, "chaos.unsafe", "asked-twice")
    story.unanswered(first, "chaos.unsafe", "asked-twice")
    story.answered(story.asked("chaos.unsafe", "asked-twice"), job, "replayed")
    job.claimed().intended().requested().settled()
    story.refused(story.asked("chaos.unsafe", "never-accepted"), "chaos.unsafe", "never-accepted")
    story.asked("chaos.unsafe", "whose-asker-died")


def with_follow_ups(story: Story) -> None:
    parent = story.accepted("chaos.pure").claimed().intended().settled()
    parent.events[-1]["data"]["follow_ups"] = 1
    JobStory(story, "chaos.keyed", "follow-up", parent).claimed().intended().requested().settled()


def in_turn(story: Story) -> None:
    first = story.accepted("chaos.pure").in_conversation("c").claimed()
    second = story.accepted("chaos.pure").in_conversation("c").claimed().parked("conversation")
    first.intended().settled().said(2)
    second.claimed().intended().parked("retry").claimed().intended().settled().said(1)


def deaths(story: Story) -> None:
    before_the_intent = story.accepted("chaos.unsafe").claimed()
    story.fault("sigkill")
    before_the_intent.rescued().claimed("w2").intended().requested().settled()
    after_the_effect = story.accepted("chaos.keyed").claimed().intended().requested("applied", "dropped")
    story.fault("group_kill")
    after_the_effect.rescued().claimed("w2").intended().requested("deduped", "answered").settled()
    stopped = story.accepted("chaos.pure").claimed().intended()
    story.fault("sigstop")
    stopped.rescued().claimed("w2").intended().settled()
    story.fault("sigstop", phase="end")
    stopped.late(fence=1)
    story.logged("attempt.late", job_id=stopped.id)
    poison = story.accepted("chaos.pure")
    for to in (State.WAITING, State.WAITING, State.DEAD):
        poison.claimed().intended()
        story.fault("sigkill")
        poison.rescued(to)


def doubts(story: Story) -> None:
    in_doubt(story, "chaos.unsafe")
    in_doubt(story, "chaos.unsafe").resolved("abandon", State.DEAD)
    in_doubt(story, "chaos.verifiable").resolved("happened", State.SUCCEEDED)
    looked_up = in_doubt(story, "chaos.verifiable").requested("looked_up", "answered")
    looked_up.row["fence"] += 1  # a look takes the job up before it says anything
    looked_up.resolved("happened", State.SUCCEEDED, kind="verified")
    absent = story.accepted("chaos.unsafe").claimed().intended().requested("dropped")
    absent.settled(State.IN_DOUBT, maybe_happened=True).resolved("retry", State.WAITING)
    absent.claimed().intended().requested().settled()
    unsaid = in_doubt(story, "chaos.verifiable").requested("looked_up", "answered")
    unsaid.resolved("unknown", State.IN_DOUBT, kind="verified")
    unsaid.row["maybe_happened"] = True


def in_doubt(story: Story, action: str) -> JobStory:
    job = story.accepted(action).claimed().intended().requested("applied", "dropped")
    story.fault("sigkill")
    return job.rescued(State.IN_DOUBT)


def ends(story: Story) -> None:
    story.accepted("chaos.keyed").cancelled()
    story.accepted("chaos.keyed").claimed().parked("rate").claimed().intended().settled(State.FAILED)
    late = story.accepted("chaos.keyed")
    late.row["deadline_at"] = story.now
    late.claimed().parked("worker", delay=0.0).claimed().settled(State.EXPIRED)
    refused = story.accepted("chaos.unsafe").claimed().intended().requested("answered", error=True)
    refused.parked("retry").claimed().intended().requested("answered", error=True).settled(State.DEAD)


def gated(story: Story) -> None:
    approved = story.accepted("chaos.approved").claimed().asks().decided("approved").claimed("w2").intended()
    approved.uses(story.approvals[-1]).requested("applied", "dropped")
    story.fault("sigkill")
    approved.rescued().claimed().intended().uses(story.approvals[-1]).requested("deduped", "answered").settled()
    story.accepted("chaos.approved").claimed().asks().decided("rejected")
    story.accepted("chaos.approved").claimed().asks().decided("approval_expired")
    story.accepted("chaos.budgeted").claimed().reserves().intended().requested().spends().settled()
    crashed = story.accepted("chaos.budgeted").claimed().reserves().intended().requested("applied", "dropped")
    story.fault("sigkill")
    crashed.rescued().claimed("w2").reserves().intended().requested("deduped", "answered").spends().settled()
    crashed.late(fence=1).spends(fence=1, worker="w1")


def test_nothing_is_found() -> None:
    assert judge(healthy().evidence()) == []


def test_it_held_although_every_invariant_had_to_be_judged() -> None:
    verdict = verdict_on(healthy().evidence())
    assert (verdict.outcome, verdict.vacuous) == (Outcome.HELD, ())


@pytest.mark.parametrize("invariant", INVARIANTS)
def test_every_invariant_had_something_to_judge(invariant: str) -> None:
    assert judged(healthy(), invariant) > 0


def test_a_calm_run_holds_and_has_nothing_to_say_on_deaths_and_doubt() -> None:
    story = Story("I1", expect_faults=False)
    plain(story)
    assert broken(story) == set()
    assert [judged(story, name) for name in ("I1", "I6", "I15")] == [7, 0, 0]

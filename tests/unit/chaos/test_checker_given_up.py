"""The checker on deadlines, cancellations, late requests, the ticks of schedules, and faults that nobody felt."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from producer.ledger.states import State
from tests.chaos.checker.findings import Outcome
from tests.chaos.checker.judge import verdict_on
from tests.chaos.evidence import ScheduleFacts
from tests.unit.chaos.story import BEGAN, JobStory, Story
from tests.unit.chaos.verdicts import broken, findings, judged, the_finding

EVERY = 10


def test_an_attempt_that_begins_after_its_deadline_is_found() -> None:
    story = Story()
    job = story.accepted().claimed()
    job.row["deadline_at"] = story.now
    job.intended().requested().settled()
    assert the_finding(story, "I17").startswith("no attempt after")


@pytest.mark.parametrize("in_time", [True, False])
def test_a_request_that_leaves_once_its_attempt_was_taken_over_is_found_where_nobody_was_held(*, in_time: bool) -> None:
    story = Story()
    story.requests_in_time = in_time
    job = story.accepted().claimed().intended()
    story.fault("sigstop")
    job.rescued().requested("applied", "dropped", attempt=1).claimed("w3").intended().requested("deduped", "answered")
    job.settled()
    assert broken(story) == ({"I22"} if in_time else set())
    assert judged(story, "I22") == (2 if in_time else 0)
    if in_time:
        assert the_finding(story, "I22").startswith("no request of attempt 1 once it was taken over / one ")


def test_an_end_before_its_deadline_is_found() -> None:
    story = Story()
    job = story.accepted()
    job.row["deadline_at"] = story.now + 100
    job.claimed().settled(State.EXPIRED)
    assert the_finding(story, "I17").startswith("an end at its deadline")


def test_an_end_for_a_deadline_that_the_job_has_not_is_found() -> None:
    story = Story()
    story.accepted().claimed().settled(State.EXPIRED)
    assert the_finding(story, "I17").startswith("an end at its deadline, None")


def test_a_job_that_nobody_cancelled_and_that_is_cancelled_is_found() -> None:
    story = Story()
    story.accepted().cancelled()
    story.cancels.clear()
    assert the_finding(story, "I18") == "somebody who asked for it / event 2 (cancelled)"


def test_a_job_that_went_on_although_its_end_was_promised_is_found() -> None:
    story = Story()
    cancelled, other = story.accepted().cancelled(), story.accepted().claimed().intended().requested().settled()
    story.cancels = [replace(line, job_id=other.id) for line in story.cancels]
    story.jobs.remove(cancelled)
    assert [found.found for found in findings(story, "I18")] == ["it is succeeded"]


def test_a_cancellation_that_the_ledger_refused_is_found_and_one_that_met_an_outage_is_not() -> None:
    story = Story()
    story.accepted().cancelled()
    asked = story.cancels[-1]
    for error in ("OperationalError: server closed the connection", "IntegrityError: jobs_lease_check"):
        story.cancels.append(replace(asked, op="info", answer=None, error=error))
    assert the_finding(story, "I18") == "an answer, or an outage / IntegrityError: jobs_lease_check"


def ticked(story: Story, tick: float) -> JobStory:
    story.tick(max(0.0, tick - story.now))
    key = f"schedule:beat:{datetime.fromtimestamp(tick, UTC):%Y-%m-%dT%H:%M:%SZ}"
    return JobStory(story, "chaos.pure", key).claimed().intended().settled()


def with_schedule(*, until: float) -> Story:
    story = Story()
    story.schedules = (ScheduleFacts(name="beat", action="chaos.pure", every=EVERY, since=BEGAN, until=until),)
    return story


def test_a_job_of_a_tick_is_asked_for_by_its_schedule() -> None:
    story = with_schedule(until=BEGAN + 2 * EVERY)
    ticked(story, BEGAN + EVERY)
    ticked(story, BEGAN + 2 * EVERY)
    assert (broken(story), judged(story, "I1")) == (set(), 2)


def test_a_tick_without_a_job_is_lost() -> None:
    story = with_schedule(until=BEGAN + 2 * EVERY)
    ticked(story, BEGAN + 2 * EVERY)
    assert the_finding(story, "I1") == "one job for a tick that was due / 0"


def test_a_tick_with_two_jobs_is_found() -> None:
    story = with_schedule(until=BEGAN + EVERY)
    ticked(story, BEGAN + EVERY)
    ticked(story, BEGAN + EVERY)
    assert "one job for a tick that was due / 2" in {f"{f.expected} / {f.found}" for f in findings(story, "I1")}


def test_a_job_of_no_tick_is_a_phantom() -> None:
    story = with_schedule(until=BEGAN)
    ticked(story, BEGAN + EVERY + 1)
    assert the_finding(story, "I2").startswith("a tick every 10 s")


def test_a_job_of_a_schedule_that_the_run_had_not_is_a_phantom() -> None:
    story = Story()
    ticked(story, BEGAN + EVERY)
    assert the_finding(story, "I2") == "somebody asked for it and was not refused / nobody asked"


def test_a_run_whose_faults_were_not_felt_is_inconclusive() -> None:
    story = Story("I1")
    story.accepted().claimed().intended().requested().settled()
    story.struck("redis_flush")
    story.struck("redis_flush", bit=False)
    story.quotas = {"redis_flush": 2, "kill_worker": 1}
    verdict = verdict_on(story.evidence())
    assert (verdict.outcome, verdict.vacuous) == (
        Outcome.INCONCLUSIVE,
        ("fault kill_worker: 0 of 1 bit", "fault redis_flush: 1 of 2 bit"),
    )


def test_a_run_whose_faults_were_felt_often_enough_holds() -> None:
    story = Story("I1")
    story.accepted().claimed().intended().requested().settled()
    story.struck("redis_flush")
    story.quotas = {"redis_flush": 1}
    assert verdict_on(story.evidence()).outcome is Outcome.HELD

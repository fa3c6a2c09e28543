"""I12, I15 and I16: retries that come too soon, jobs that nobody takes up, and what is left behind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from producer.ledger.states import State
from tests.chaos.checker.pacing import percentile
from tests.chaos.evidence import LiveProcess
from tests.unit.chaos.story import JobStory, Story
from tests.unit.chaos.verdicts import broken, figure, findings, judged, the_finding


def parked(waiting_for: str, delay: float = 0.0) -> tuple[Story, JobStory]:
    """Event 4 parks it."""
    story = Story(expect_faults=False)
    job = story.accepted("chaos.pure").claimed().intended().parked(waiting_for, delay=delay)
    return story, job


# ---- I12 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waiting_for", "delay"),
    [("retry", -0.001), ("retry", 4.001), ("worker", 0.1), ("rate", -1.0), ("rate", 108_000.1), ("retry", None)],
)
def test_a_delay_outside_its_bounds(waiting_for: str, delay: float | None) -> None:
    story, job = parked(waiting_for)
    job.claimed().intended().settled()
    job.events[3]["data"]["delay"] = delay
    assert "I12" in broken(story)
    assert any(each.found == f"{delay} s" for each in findings(story, "I12"))


@pytest.mark.parametrize(("waiting_for", "delay"), [("retry", 0.0), ("retry", 4.0), ("worker", 0.0), ("rate", 100.0)])
def test_a_delay_within_them(waiting_for: str, delay: float) -> None:
    story, job = parked(waiting_for, delay)
    job.claimed().intended().settled()
    assert broken(story) == set()


def test_an_attempt_that_does_not_wait() -> None:
    story, job = parked("retry")
    job.claimed().intended().settled()
    job.events[3]["data"]["delay"] = 4.0
    assert broken(story) == {"I12"}
    assert the_finding(story, "I12") == "no attempt before 4.0 s / claimed after 0.100 s"


@pytest.mark.parametrize("waiting_for", ["concurrency", "conversation"])
def test_who_waits_for_a_place_or_a_turn_may_come_as_soon_as_it_is_free(waiting_for: str) -> None:
    story, job = parked(waiting_for)
    job.claimed().intended().settled()
    job.events[3]["data"]["delay"] = 4.0
    assert broken(story) == set()


def test_who_is_cancelled_need_not_wait() -> None:
    story, job = parked("retry")
    job.row["cancel_requested_at"] = story.now
    job.claimed().intended().settled()
    job.events[3]["data"]["delay"] = 4.0
    assert broken(story) == set()


def test_how_often_the_world_was_asked_for_each_job_is_reported() -> None:
    story = Story(expect_faults=False)
    story.accepted().claimed().intended().requested().settled()
    job = story.accepted().claimed().intended().requested("answered", error=True).parked("retry")
    job.claimed().intended().requested().settled()
    assert figure(story, "I12", "requests a job") == 1.5


# ---- I15 -------------------------------------------------------------------------------------------------------


def death(story: Story, *, after: float = 5.0, to: State = State.WAITING, target: str = "w1") -> JobStory:
    job = story.accepted("chaos.pure").claimed()
    story.fault("sigkill", target)
    return job.rescued(to, after=after)


def test_a_job_that_was_taken_up_too_late() -> None:
    story = Story()
    death(story, after=16.0).claimed("w2").intended().settled()
    assert broken(story) == {"I15"}
    assert the_finding(story, "I15") == "p99 of recoveries within 16.0 s / p99 16.200 s; worst here"


def test_a_job_that_was_taken_over_in_time_and_claimed_too_late() -> None:
    story = Story()
    job = death(story)
    story.tick(12.0)
    job.claimed("w2").intended().settled()
    assert broken(story) == {"I15"}


def test_a_job_that_was_given_up_too_late() -> None:
    story = Story()
    death(story, after=17.0, to=State.DEAD)
    assert broken(story) == {"I15"}


def test_the_figures_are_reported_whether_it_holds_or_not() -> None:
    story = Story()
    for after in (5.0, 6.0, 7.0):
        death(story, after=after).claimed("w2").intended().settled()
    assert [figure(story, "I15", name) for name in ("p50 s", "p99 s", "max s", "limit s")] == [6.2, 7.2, 7.2, 16.0]


def test_one_straggler_in_a_hundred_is_within_the_99th_percentile() -> None:
    story = Story()
    for number in range(100):
        death(story, after=30.0 if number == 50 else 5.0).claimed("w2").intended().settled()
    assert broken(story) == set()
    death(story, after=30.0).claimed("w2").intended().settled()
    death(story, after=30.0).claimed("w2").intended().settled()
    assert broken(story) == {"I15"}


def test_it_counts_from_when_a_server_that_was_away_came_back() -> None:
    story = Story()
    job = story.accepted("chaos.pure").claimed()
    story.fault("sigkill")
    story.fault("stop", "postgres")
    story.tick(60.0)
    story.fault("stop", "postgres", phase="end")
    job.rescued().claimed("w2").intended().settled()
    assert broken(story) == set()


@pytest.mark.parametrize(("between", "expected"), [(4.0, set()), (6.0, {"I15"})])
@pytest.mark.parametrize(
    "away",
    [
        (("postgres_stop", "postgres"), ("redis_kill", "redis")),
        (("postgres_link_hole", "postgres link"), ("redis_link_hole", "redis link")),
    ],
    ids=["servers", "links"],
)
def test_while_a_server_is_away_it_does_not_count_and_between_two_of_them_it_does(
    away: tuple[tuple[str, str], ...], between: float, expected: set[str]
) -> None:
    story = Story()
    job = death(story)
    for fault, target in away:
        story.fault(fault, target)
        story.tick(20.0)
        story.fault(fault, target, phase="end")
        story.tick(between)
    job.claimed("w2").intended().settled()
    assert broken(story) == expected


@pytest.mark.parametrize("fault", ["postgres_slow", "postgres_terminate", "redis_flush"])
def test_a_server_that_answers_is_no_excuse(fault: str) -> None:
    story, target = Story(), fault.partition("_")[0]
    job = death(story)
    for phase in ("begin", "end"):
        story.fault(fault, target, phase=phase)
        story.tick(8.0)
    job.claimed("w2").intended().settled()
    assert broken(story) == {"I15"}


def test_who_stands_still_is_an_excuse_only_where_it_comes_back_before_its_job_is_taken_over() -> None:
    story = Story()
    job = story.accepted("chaos.pure").claimed()
    story.fault("sigstop")
    job.rescued(after=6.0).claimed("w2").intended().settled()
    story.fault("sigstop", phase="end")
    assert figure(story, "I15", "max s") == 6.2


def test_two_that_are_away_at_the_same_time_are_away_once() -> None:
    story = Story()
    job = death(story)
    for phase in ("begin", "end"):
        for target in ("postgres", "redis"):
            story.fault("stop", target, phase=phase)
        story.tick(14.0)
    job.claimed("w2").intended().settled()
    assert broken(story) == {"I15"}


def test_what_befell_another_in_the_meantime_is_no_excuse() -> None:
    story = Story()
    job = story.accepted("chaos.pure").claimed()
    story.fault("sigkill")
    story.fault("sigstop", "w3")
    story.tick(20.0)
    story.fault("sigstop", "w3", phase="end")
    job.rescued().claimed("w2").intended().settled()
    assert broken(story) == {"I15"}


@pytest.mark.parametrize(("owner", "expected"), [("host:77", {"I15"}), ("host:78", set()), ("host:99", {"I15"})])
def test_who_died_is_known_by_name_or_by_pid_and_else_the_first_fault_is_taken(owner: str, expected: set[str]) -> None:
    story = Story()
    job = story.accepted("chaos.pure").claimed(owner)
    story.fault("sigkill", "a worker")
    story.faults[0] = replace(story.faults[0], pid=77)
    story.tick(20.0)
    story.fault("sigkill", "another worker")
    story.faults[1] = replace(story.faults[1], pid=78)
    job.rescued().claimed("w2").intended().settled()
    assert broken(story) == expected


def test_a_job_that_waits_for_a_worker_of_its_version_is_not_measured() -> None:
    story = Story()
    death(story, after=16.0).claimed("w2").intended().settled()
    assert judged(story, "I15") == 1
    story.accepted("chaos.pure").row["action_version"] = 2
    assert judged(story, "I15") == 0


def test_a_rescue_without_a_death_is_not_measured() -> None:
    story = Story()
    story.fault("sigkill")
    job = story.accepted("chaos.pure").claimed()
    job.rescued(after=60.0).claimed("w2").intended().settled()
    assert judged(story, "I15") == 0


@pytest.mark.parametrize(
    ("values", "percent", "expected"), [([1.0], 99, 1.0), ([1.0, 2.0, 3.0], 50, 2.0), (range(1, 101), 99, 99)]
)
def test_a_percentile_is_one_of_the_values(values: list[float], percent: int, expected: float) -> None:
    assert percentile(values, percent) == expected


# ---- I16 -------------------------------------------------------------------------------------------------------


def test_a_ring_that_is_left() -> None:
    story = Story(expect_faults=False)
    story.queues["actions"] = 2
    assert the_finding(story, "I16") == "no ring but for jobs that are over / 2 in actions"
    story.over["actions"] = 1
    assert broken(story) == {"I16"}
    story.over["actions"] = 2
    assert broken(story) == set()


def test_a_workers_word_to_itself_is_nothing_that_is_left() -> None:
    story = Story(expect_faults=False)
    story.queues["canary.host:7"] = 1
    assert findings(story, "I16") == []


def test_rings_that_nobody_acknowledged_although_nobody_was_killed() -> None:
    story = Story()
    story.fault("sigstop")
    story.unacked = 1
    assert the_finding(story, "I16").endswith("1 rings")


def test_a_killed_worker_s_rings_are_handed_out_again_later_and_counted() -> None:
    story = Story()
    story.fault("group_kill")
    story.unacked = 1
    assert (broken(story), figure(story, "I16", "unacked")) == (set(), 1)


def test_a_key_that_nobody_knows() -> None:
    story = Story(expect_faults=False)
    known = ("surefoot:held:api", "surefoot:held-line:api", "surefoot:breakers:looked")
    story.keys = {"string": (*known, "celery-task-meta-1"), "zset": ("unacked_index",)}
    assert the_finding(story, "I16") == "no key that nobody knows / string celery-task-meta-1"


def test_a_lease_that_is_left() -> None:
    story = Story(expect_faults=False)
    story.accepted("chaos.pure").claimed()
    assert "leased by w1" in {each.found for each in findings(story, "I16")}


def test_a_process_that_lives_on() -> None:
    story = Story(expect_faults=False)
    story.left = replace(story.left, processes=(LiveProcess(pid=7, name="w1", command="celery worker"),))
    assert the_finding(story, "I16") == "no process of the run / w1, pid 7: celery worker"


@pytest.mark.parametrize(
    ("fields", "found"), [({"postgres_connections": 4}, "4"), ({"redis_clients": 2}, "2")], ids=["postgres", "redis"]
)
def test_a_connection_that_is_left(fields: dict[str, int], found: str) -> None:
    story = Story(expect_faults=False)
    story.left = replace(story.left, **fields)  # type: ignore[arg-type]  # each is one of its counts
    assert the_finding(story, "I16").endswith(f"/ {found}")

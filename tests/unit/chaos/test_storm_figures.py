"""A storm's figures, from samples, faults and a ledger that are made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from producer.ledger.states import State
from tests.chaos.evidence import LiveProcess, ProcessesLeft
from tests.chaos.storm.figures import Figure, Phases, figures_of
from tests.chaos.storm.sizes import SIZES, Size
from tests.unit.chaos.story import BEGAN, Story

CALM, STORM, END = BEGAN + 10, BEGAN + 20, BEGAN + 60
PHASES = Phases(calm_began=CALM, storm_began=STORM, last_fault=END - 10, rest=END, load_ended=END - 5)

RELEASE = SIZES["release"]


def samples(*rates: tuple[float, float]) -> list[dict[str, Any]]:
    """A sample each second from the calm's begin on; a rate holds from its moment on."""
    done, found = 0.0, []
    for second in range(round(END - CALM) + 1):
        at = CALM + second
        found.append({"at": at, "done": round(done), "states": {"succeeded": round(done)}})
        done += next(rate for moment, rate in reversed(rates) if at >= moment)
    return found


def told() -> Story:
    story = Story()
    for _ in range(4):
        story.accepted().claimed().intended().requested().settled()
    return story


def figures(
    story: Story, rates: list[dict[str, Any]], *, phases: Phases = PHASES, stuck: int = 0, size: Size = RELEASE
) -> dict[str, Figure]:
    return figures_of(story.evidence(), rates, phases, size=size, stuck=stuck)


def struck(story: Story, began: float, ended: float) -> None:
    story.now = began
    story.struck("redis_flush")
    story.faults[-1] = replace(story.faults[-1], began=began, at=ended, ended=ended)


def test_what_goes_on_between_faults_is_compared_with_the_calm() -> None:
    story = told()
    struck(story, STORM, STORM + 15)
    struck(story, STORM + 25, END - 10)
    rates = samples((CALM, 20.0), (STORM, 5.0), (STORM + 16, 18.0), (STORM + 25, 5.0), (END - 10, 18.0))
    found = figures(story, rates)
    assert found["calm_throughput"].value == pytest.approx(20, abs=1)
    assert found["between_faults_throughput"].value == pytest.approx(16, abs=2)
    assert (found["throughput_ratio"].target, found["throughput_ratio"].held) == ("≥ 0.8", True)


def test_a_house_that_crawls_between_faults_does_not_hold() -> None:
    story = told()
    struck(story, STORM, STORM + 15)
    found = figures(story, samples((CALM, 20.0), (STORM, 5.0)))
    assert found["throughput_ratio"].held is False


def test_a_ratio_that_could_not_be_measured_does_not_hold() -> None:
    blind = [{**sample, "states": {}} for sample in samples((CALM, 20.0))]
    found = figures(told(), blind)["throughput_ratio"]
    assert (found.value, found.held) == (None, False)


def test_a_short_storm_is_told_how_fast_it_was_and_judged_only_by_how_long_it_took() -> None:
    rates = samples((CALM, 20.0), (STORM, 5.0))
    found = figures(told(), rates, size=SIZES["slice"])
    assert [(found[name].target, found[name].held) for name in ("throughput_ratio", "seconds")] == [
        ("≥ 0.8", None),
        ("≤ 360", True),
    ]


@pytest.mark.parametrize(("jobs", "faults", "minutes", "held"), [(4, 1, 1, True), (5, 2, 0, False)])
def test_a_storm_is_held_to_its_size(*, jobs: int, faults: int, minutes: float, held: bool) -> None:
    story = told()
    story.struck("redis_flush")
    size = replace(RELEASE, jobs=jobs, faults=faults, minutes=minutes, around_seconds=0)
    found = figures(story, samples((CALM, 1.0)), size=size)
    assert [found[name].held for name in ("jobs", "faults", "seconds")] == [held, held, held]


def test_a_stretch_in_which_postgres_could_not_be_asked_says_nothing() -> None:
    blind = [{**sample, "states": {}} for sample in samples((CALM, 20.0))]
    assert figures(told(), blind)["calm_throughput"].value is None


def test_the_drain_counts_from_the_last_fault() -> None:
    assert figures(told(), samples((CALM, 1.0)))["drain_seconds"] == Figure(10.0, "s", "≤ 120", held=True)


def test_a_backlog_that_does_not_drain_does_not_hold() -> None:
    found = figures(told(), samples((CALM, 1.0)), phases=replace(PHASES, rest=None))["drain_seconds"]
    assert (found.value, found.held) == (None, False)


def test_doubt_is_a_share_of_all_jobs_and_none_in_calm() -> None:
    story = told()
    story.accepted("chaos.unsafe").claimed().intended().requested("applied", "dropped").settled(
        State.IN_DOUBT, maybe_happened=True
    )
    found = figures(story, samples((CALM, 1.0)))
    assert (found["in_doubt"].value, found["in_doubt_share"].value, found["in_doubt_share"].held) == (1, 0.2, False)
    assert (found["in_doubt_in_calm"].value, found["in_doubt_in_calm"].held) == (1, False)


@pytest.mark.parametrize(
    ("why", "counted"), [("no time before the deadline", 0), ("deadline passed", 0), ("it may have happened", 1)]
)
def test_whoever_gave_a_job_no_time_is_in_doubt_in_calm_by_his_own_wish(why: str, counted: int) -> None:
    story = told()
    job = story.accepted("chaos.unsafe").claimed().intended().requested("applied", "dropped")
    job.settled(State.IN_DOUBT, maybe_happened=True)
    job.events[-1] |= {"data": {"why": why}}
    assert figures(story, samples((CALM, 1.0)))["in_doubt_in_calm"].value == counted


def test_what_is_left_behind_is_counted_above_what_was_there_before() -> None:
    story = told()
    orphan = LiveProcess(pid=7, name="worker-1.1", command="celery")
    story.left = ProcessesLeft(processes=(orphan,), postgres_connections=5, redis_clients=1)
    found = figures(story, samples((CALM, 1.0)), stuck=2)
    names = ("orphans", "leaked_connections", "workers_that_did_not_end")
    assert [(found[name].value, found[name].held) for name in names] == [(1, False), (2, False), (2, False)]


def test_faults_that_bit_are_told_from_those_that_nobody_felt() -> None:
    story = told()
    story.struck("redis_flush")
    story.struck("redis_flush", bit=False)
    story.struck("kill_worker", bit=None)
    found = figures(story, samples((CALM, 1.0)))
    assert [found[name].value for name in ("faults", "faults_that_bit", "kinds")] == [3, 1, 2]


def test_what_a_person_has_resolved_was_in_doubt() -> None:
    story = told()
    for _ in range(2):
        story.fault("sigstop")
        story.accepted("chaos.unsafe").claimed().intended().requested().settled(State.IN_DOUBT, maybe_happened=True)
    *_, last = story.jobs
    last.resolved("happened", State.SUCCEEDED)
    assert figures(story, samples((CALM, 1.0)))["in_doubt"].value == 2

"""When whoever waits for a job has it looked at, by a clock of the tests' own."""

from __future__ import annotations

import itertools
import math
from uuid import UUID, uuid4

from producer.looks import FRESH_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Looks

A, B = uuid4(), uuid4()


Found = list[tuple[float, set[UUID]]]


def looks_within(looks: Looks, seconds: float, *, began: float = 0.0, took: float = 0.0) -> Found:
    """Go from look to look as the thread would; return when which jobs were looked at."""
    found: Found = []
    now = began
    for _ in itertools.repeat(None):
        now += looks.seconds_left(now)
        if now > began + seconds:
            break
        taken = set(looks.take(now))
        if taken:
            found.append((now, taken))
            now, looks.took = now + took, took
    return found


def times(found: Found) -> list[float]:
    return [round(at, 6) for at, _ in found]


def test_where_nobody_waits_there_is_nothing_to_look_at() -> None:
    looks = Looks(every=1.0)
    assert (looks.take(0.0), looks.seconds_left(0.0)) == ([], math.inf)
    looks.expect(A, 0.0)
    looks.drop(A)
    assert (looks.take(9.0), looks.seconds_left(9.0)) == ([], math.inf)


def test_a_job_that_is_not_heard_is_looked_at_often_at_first_and_then_four_times_a_second() -> None:
    looks = Looks(every=1.0)
    looks.expect(A, 0.0)
    assert times(looks_within(looks, 0.02)) == [0.002, 0.005, 0.0095, 0.01625]
    looks_within(looks, 5.0, began=0.02)
    later = times(looks_within(looks, 5.0, began=5.02))
    pauses = [b - a for a, b in itertools.pairwise(later)]
    assert max(pauses) <= LONGEST_PAUSE_SECONDS + 1e-5
    assert 20 <= len(later) <= 25  # those four, and the one a second


def test_a_job_that_is_heard_is_looked_at_once_soon_and_then_once_a_second() -> None:
    looks = Looks(every=1.0)
    looks.expect(A, 0.0)
    looks.hear({A}, 0.0005)
    assert times(looks_within(looks, 3.5)) == [0.0005 + FRESH_PAUSE_SECONDS, 1.0, 2.0, 3.0]


def test_a_job_that_ends_while_it_begins_to_be_heard_is_not_looked_at() -> None:
    looks = Looks(every=1.0)
    looks.expect(A, 0.0)
    looks.hear({A}, 0.0005)
    looks.drop(A)
    assert looks_within(looks, 3.5) == []


def test_one_look_a_second_is_for_all_jobs_whenever_they_were_asked_for() -> None:
    looks = Looks(every=1.0)
    for at, job_id in ((0.0, A), (0.7, B)):
        looks.expect(job_id, at)
        looks.hear({job_id}, at)
        assert looks.take(at + FRESH_PAUSE_SECONDS) == [job_id]
    assert looks_within(looks, 2.0, began=0.8) == [(1.0, {A, B}), (2.0, {A, B})]


def test_a_job_that_is_heard_already_is_looked_at_again_for_each_who_begins_to_wait() -> None:
    # It may have ended between what the newcomer read and now, and its announcement is gone.
    looks = Looks(every=1.0)
    looks.expect(A, 0.0)
    looks.hear({A}, 0.0)
    assert looks.take(0.05) == [A]
    looks.expect(A, 0.1)
    assert looks.take(0.1 + FRESH_PAUSE_SECONDS) == [A]


def test_what_is_heard_of_a_job_that_nobody_waits_for_any_more_changes_nothing() -> None:
    looks = Looks(every=1.0)
    looks.expect(A, 0.0)
    looks.drop(A)
    looks.hear({A}, 0.0)
    assert looks.seconds_left(0.0) == math.inf


def test_once_nothing_is_heard_all_jobs_are_looked_at_often_again() -> None:
    looks = Looks(every=1.0)
    for job_id in (A, B):
        looks.expect(job_id, 0.0)
    looks.hear({A, B}, 0.0)
    looks.take(0.1)
    looks.deafen(0.5)
    assert looks_within(looks, 0.006, began=0.5) == [(0.502, {A, B}), (0.505, {A, B})]


def test_a_slow_ledger_is_looked_at_half_of_the_time_at_most() -> None:
    looks = Looks(every=math.inf)
    looks.expect(A, 0.0)
    found = looks_within(looks, 100.0, took=2.0)
    assert len(found) <= 100.0 / 2.0
    assert all(b - a > 2.0 + LONGEST_PAUSE_SECONDS - 1e-5 for a, b in itertools.pairwise(times(found)[20:]))

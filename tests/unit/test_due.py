"""What a round makes of a schedule that is due: on time, late, or after nobody looked for a long time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.declaration import MISSED, Missed
from producer.ticks import make_rule
from worker.due import ON_TIME, TICKS_A_ROUND, Due, due

HOURLY = make_rule(cron="0 * * * *")
EVERY_SECOND = make_rule(every=1)
NOW = datetime(2026, 11, 25, 12, 0, 0, 250_000, tzinfo=UTC)


def hour(number: int) -> datetime:
    return datetime(2026, 11, 25, number, tzinfo=UTC)


@pytest.mark.parametrize("missed", MISSED)
def test_a_tick_that_is_due_now_gets_its_job_whatever_becomes_of_missed_ones(missed: Missed) -> None:
    assert due(HOURLY, missed, hour(12), NOW) == Due((hour(12),), hour(13), None)


@pytest.mark.parametrize("missed", MISSED)
def test_what_a_restart_of_under_a_minute_left_is_not_missed(missed: Missed) -> None:
    found = due(EVERY_SECOND, missed, NOW.replace(microsecond=0) - timedelta(seconds=40), NOW)
    assert (len(found.ticks), found.missed_since) == (41, None)


@pytest.mark.parametrize(
    ("missed", "ticks"),
    [("skip", ()), ("latest", (hour(11),)), ("all", (hour(8), hour(9), hour(10), hour(11)))],
)
def test_after_hours_without_a_worker_missed_ticks_get_what_was_declared(
    missed: Missed, ticks: tuple[datetime, ...]
) -> None:
    late = NOW - timedelta(minutes=20)
    assert due(HOURLY, missed, hour(8), late) == Due(ticks, hour(12), hour(8))


@pytest.mark.parametrize(
    ("missed", "ticks"), [("skip", (hour(12),)), ("latest", (hour(12),)), ("all", (hour(11), hour(12)))]
)
def test_a_tick_that_is_due_now_stands_for_the_missed_ones_before_it(
    missed: Missed, ticks: tuple[datetime, ...]
) -> None:
    assert due(HOURLY, missed, hour(11), NOW) == Due(ticks, hour(13), hour(11))


def test_very_many_missed_ticks_are_made_up_for_in_bounded_rounds_without_a_gap() -> None:
    since = NOW.replace(microsecond=0) - timedelta(minutes=5)
    made: list[datetime] = []
    following = since
    while following <= NOW:
        found = due(EVERY_SECOND, "all", following, NOW)
        assert len(found.ticks) <= TICKS_A_ROUND
        made += found.ticks
        following = found.next_tick
    assert made == [since + timedelta(seconds=n) for n in range(301)]


@pytest.mark.parametrize("missed", ["skip", "latest"])
def test_a_year_without_workers_is_passed_over_at_once(missed: Missed) -> None:
    since = NOW.replace(microsecond=0) - timedelta(days=365)
    found = due(EVERY_SECOND, missed, since, NOW)
    assert found.ticks == tuple(NOW.replace(microsecond=0) - timedelta(seconds=n) for n in range(59, -1, -1))


@given(st.sampled_from(MISSED), st.integers(1, 100_000), st.integers(0, 1_000_000))
def test_every_round_moves_a_due_schedule_on_and_makes_nothing_before_its_time(
    missed: Missed, every: int, late_seconds: int
) -> None:
    rule = make_rule(every=every)
    next_tick = rule.after(NOW)
    now = next_tick + timedelta(seconds=late_seconds)
    found = due(rule, missed, next_tick, now)
    assert found.next_tick > max((*found.ticks, next_tick - timedelta(seconds=1)))
    assert all(next_tick <= tick <= now for tick in found.ticks)
    assert list(found.ticks) == sorted(set(found.ticks))
    assert missed == "all" or found.next_tick > now
    if missed == "skip":
        assert all(tick >= now - ON_TIME for tick in found.ticks)

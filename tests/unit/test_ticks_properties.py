"""Ticks against an oracle that looks at the clock in each minute of the hours around its change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.ticks import Rule

# A few hours around changes of the clock: forward and back, by an hour and by half, at midnight, by two hours.
CHANGES = [
    ("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 3, 8, 5, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 11, 1, 5, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2026, 10, 29, 21, tzinfo=UTC)),
    ("Antarctica/Troll", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Antarctica/Troll", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("UTC", datetime(2026, 1, 1, tzinfo=UTC)),
]
AROUND = timedelta(hours=5)
MARGIN = timedelta(hours=4)
MINUTE = timedelta(minutes=1)
MINUTES = ["*", "*/7", "*/20", "0", "30", "5,45", "0-59/15", "10-20"]
HOURS = ["*", "*/2", "0", "1", "2", "3", "1-3", "23", "0,2", "1-4/3"]

moments = st.integers(0, 600).map(lambda minutes: timedelta(minutes=minutes) - AROUND)


@settings(max_examples=50)
@given(st.sampled_from(CHANGES), st.sampled_from(MINUTES), st.sampled_from(HOURS))
def test_no_tick_is_skipped_and_none_made_up_around_a_change_of_the_clock(
    change: tuple[str, datetime], minute: str, hour: str
) -> None:
    zone, at = change
    rule = Rule(f"{minute} {hour} * * *", None, zone)
    begin, end = at - AROUND, at + AROUND
    found = list(takewhile(lambda tick: tick <= end, rule.from_(begin)))
    assert found == oracle(rule, begin, end)


@given(st.sampled_from(CHANGES), st.sampled_from(MINUTES), st.sampled_from(HOURS), moments)
def test_the_next_tick_is_the_same_from_wherever_one_looks(
    change: tuple[str, datetime], minute: str, hour: str, since: timedelta
) -> None:
    zone, at = change
    rule = Rule(f"{minute} {hour} * * *", None, zone)
    tick = rule.after(at + since)
    assert tick > at + since
    assert rule.after(tick - timedelta(microseconds=1)) == tick
    assert rule.after(tick - timedelta(seconds=1)) == tick
    assert rule.after(at + since + (tick - at - since) / 2) == tick


@given(st.integers(1, 10**7), st.integers(0, 2**31))
def test_an_interval_has_exactly_one_tick_in_each_of_its_lengths(every: int, second: int) -> None:
    rule = Rule(None, every, "UTC")
    moment = datetime.fromtimestamp(second, UTC)
    tick = rule.after(moment)
    assert moment < tick <= moment + timedelta(seconds=every)
    assert rule.after(tick) == tick + timedelta(seconds=every)


def oracle(rule: Rule, begin: datetime, end: datetime) -> list[datetime]:
    """Look at the zone's clock in every minute."""
    clock = clock_of(rule.zone, begin - MARGIN, end + MARGIN)
    matching = wall_times(str(rule.cron), clock[0][1], clock[-1][1])
    if any(field.startswith("*") for field in str(rule.cron).split()[:2]):
        due = {minute for minute, wall in clock if wall in matching}
    else:
        due = {next(minute for minute, shown in clock if shown >= wall) for wall in matching}
    return sorted(minute for minute in due if begin <= minute <= end)


@cache
def clock_of(zone: str, begin: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Every minute, and what the zone's clock shows then."""
    minutes = [begin + n * MINUTE for n in range(int((end - begin) / MINUTE))]
    return [(minute, minute.astimezone(ZoneInfo(zone)).replace(tzinfo=None)) for minute in minutes]


def wall_times(cron: str, begin: datetime, end: datetime) -> set[datetime]:
    """The times of a clock that is never changed."""
    return set(takewhile(lambda wall: wall <= end, CronSim(cron, begin - MINUTE)))

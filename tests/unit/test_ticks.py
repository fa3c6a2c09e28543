"""When a schedule is due, where clocks change too; and what cannot be one."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.errors import InvalidSchedule
from producer.ticks import Rule, make_rule, spelled

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


def shown_by_clock(cron: str, zone: str, day: str, *, count: int) -> list[str]:
    """The first ticks from midnight of a day on, as the zone's clock shows them."""
    begin = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    ticks = islice(make_rule(cron=cron, zone=zone).from_(begin.astimezone(UTC)), count)
    return [f"{tick.astimezone(ZoneInfo(zone)):%d %H:%M %z}" for tick in ticks]


@pytest.mark.parametrize(
    ("cron", "zone", "day", "expected"),
    [
        pytest.param(
            "30 2 * * *", BERLIN, "2026-03-28", ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"], id="gap, fixed"
        ),
        pytest.param(
            "0,30 2 * * *",
            BERLIN,
            "2026-03-29",
            ["29 03:00 +0200", "30 02:00 +0200"],
            id="gap, two times are one",
        ),
        pytest.param(
            "*/30 2 * * *",
            BERLIN,
            "2026-03-29",
            ["30 02:00 +0200", "30 02:30 +0200"],
            id="gap, by the clock",
        ),
        pytest.param(
            "0 */2 * * *",
            BERLIN,
            "2026-03-29",
            ["29 00:00 +0100", "29 04:00 +0200", "29 06:00 +0200"],
            id="gap, every other hour",
        ),
        pytest.param(
            "30 2 * * *", BERLIN, "2026-10-25", ["25 02:30 +0200", "26 02:30 +0100"], id="fold, fixed: the first time"
        ),
        pytest.param(
            "*/30 2 * * *",
            BERLIN,
            "2026-10-25",
            ["25 02:00 +0200", "25 02:30 +0200", "25 02:00 +0100", "25 02:30 +0100", "26 02:00 +0100"],
            id="fold, by the clock: both times",
        ),
        pytest.param(
            "0 * * * *",
            BERLIN,
            "2026-10-25",
            ["25 00:00 +0200", "25 01:00 +0200", "25 02:00 +0200", "25 02:00 +0100", "25 03:00 +0100"],
            id="fold, hourly",
        ),
        pytest.param("30 2 * * *", NEW_YORK, "2026-03-08", ["08 03:00 -0400", "09 02:30 -0400"], id="New York, gap"),
        pytest.param("30 1 * * *", NEW_YORK, "2026-11-01", ["01 01:30 -0400", "02 01:30 -0500"], id="New York, fold"),
        pytest.param(
            "15 2 * * *", LORD_HOWE, "2026-10-04", ["04 02:30 +1100", "05 02:15 +1100"], id="half an hour off"
        ),
        pytest.param("45 1 * * *", LORD_HOWE, "2026-04-05", ["05 01:45 +1100", "06 01:45 +1030"], id="half an hour on"),
        pytest.param(
            "*/15 1-3 * * *",
            LORD_HOWE,
            "2026-04-05",
            [
                "05 01:00 +1100",
                "05 01:15 +1100",
                "05 01:30 +1100",
                "05 01:45 +1100",
                "05 01:30 +1030",
                "05 01:45 +1030",
                "05 02:00 +1030",
            ],
            id="half an hour's fold, by the clock",
        ),
        pytest.param(
            "*/20 3 * * *",
            LORD_HOWE,
            "2026-10-04",
            ["04 03:00 +1100", "04 03:20 +1100", "04 03:40 +1100"],
            id="the hours after half an hour's gap begin as ever",
        ),
        pytest.param("0 12 L * *", BERLIN, "2026-02-01", ["28 12:00 +0100", "31 12:00 +0200"], id="last of the month"),
        pytest.param("0 0 29 2 *", "UTC", "2026-01-01", ["29 00:00 +0000", "29 00:00 +0000"], id="29 February"),
    ],
)
def test_a_tick_is_where_the_documentation_says(cron: str, zone: str, day: str, expected: list[str]) -> None:
    assert shown_by_clock(cron, zone, day, count=len(expected)) == expected


@pytest.mark.parametrize(
    ("given", "where", "says"),
    [
        ({"cron": "0 0 30 2 *"}, "cron", "there is no day 30 in month 2 of any year"),
        ({"cron": "0 0 31 4,6 MON"}, "cron", "there is no day 31 in month 4,6"),
        ({"cron": "0 0 */31 2 TUE#5"}, "cron", "never fires in UTC"),
        ({"cron": "*/15 2 * 3 SUN#2", "zone": NEW_YORK}, "cron", "never fires in America/New_York"),
        ({"cron": "60 * * * *"}, "cron", "bad minute; the fields are minute 0-59"),
        ({"cron": "* * * *"}, "cron", "has 4 fields, not 5"),
        ({"cron": "* * * * * *"}, "cron", "seconds are every="),
        ({"cron": "@daily"}, "cron", "has 1 fields"),
        ({"cron": "* * * * " + "1," * 200}, "cron", "must be text"),
        ({"cron": "٣ * * * *"}, "cron", "must be text"),
        ({"cron": 5}, "cron", "must be text such as"),
        ({"cron": "0 3 * * *", "zone": "Europe/Berlni"}, "zone", "did you mean 'Europe/Berlin'"),
        ({"cron": "0 3 * * *", "zone": "Europe"}, "zone", "'Europe' is not a time zone"),
        ({"cron": "0 3 * * *", "zone": "../../etc/passwd"}, "zone", "is not a time zone"),
        ({"cron": "0 3 * * *", "zone": "localtime"}, "zone", "is another on each machine"),
        ({"cron": "0 3 * * *", "zone": "right/Europe/Berlin"}, "zone", "did you mean 'Europe/Berlin'"),
        ({"cron": "0 3 * * *", "zone": "posix/UTC"}, "zone", "is not a time zone"),
        ({"cron": "0 3 * * *", "zone": ["UTC"]}, "zone", "is not a time zone"),
        ({"cron": "0 3 * * *", "zone": ""}, "zone", "'' is not a time zone"),
        ({"every": 0}, "every", "1 or more"),
        ({"every": -5}, "every", "1 or more"),
        ({"every": 1.5}, "every", "whole number of seconds"),
        ({"every": True}, "every", "whole number of seconds"),
        ({"every": float("nan")}, "every", "whole number of seconds"),
        ({"every": timedelta(milliseconds=100)}, "every", "whole number of seconds"),
        ({"every": 10**10}, "every", "never fires"),
        ({"every": 60, "zone": BERLIN}, "zone", "belongs to cron"),
        ({}, "cron", "either cron or every"),
        ({"cron": "* * * * *", "every": 60}, "cron", "either cron or every"),
    ],
)
def test_what_cannot_be_a_schedule_is_refused_by_field_and_says_what_to_do(
    given: dict[str, Any], where: str, says: str
) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        make_rule(**given)
    assert caught.value.where == where
    assert says in caught.value.problem


@given(st.text(alphabet="0123456789*/-,#L WSUNMOJAN?%", max_size=40))
def test_whatever_is_given_as_cron_is_taken_or_refused_in_words(cron: str) -> None:
    try:
        rule = make_rule(cron=cron)
    except InvalidSchedule:
        return
    assert rule.after(datetime(2026, 1, 1, tzinfo=UTC)) > datetime(2026, 1, 1, tzinfo=UTC)


def test_an_interval_is_counted_from_one_instant_whenever_it_is_asked_for() -> None:
    rule = make_rule(every=timedelta(minutes=7))
    assert rule == Rule(None, 420, "UTC")
    at = datetime(2026, 11, 25, 12, 0, 0, 1, tzinfo=UTC)
    assert (rule.after(at) - datetime(1970, 1, 1, tzinfo=UTC)) % timedelta(minutes=7) == timedelta(0)
    assert rule.after(at) == rule.after(at + timedelta(seconds=1)) == next(rule.from_(rule.after(at)))
    assert make_rule(every=3600).after(at) == datetime(2026, 11, 25, 13, tzinfo=UTC)


def test_a_tick_is_later_than_the_moment_asked_for_to_the_microsecond() -> None:
    rule = make_rule(cron="0 12 * * *")
    noon = datetime(2026, 11, 25, 12, tzinfo=UTC)
    assert rule.after(noon - timedelta(microseconds=1)) == noon
    assert rule.after(noon) == rule.after(noon + timedelta(microseconds=1)) == noon + timedelta(days=1)


def test_a_rule_is_kept_in_one_spelling() -> None:
    assert make_rule(cron=" 0  3 * jan mon ") == Rule("0 3 * JAN MON", None, "UTC")


@pytest.mark.parametrize("cron", ["* * * * *", "0 3 * * *", "0 0 1 1 *", "*/7 1,2,3 * * *"])
def test_the_last_tick_before_a_moment_is_the_one_that_counting_up_to_it_finds(cron: str) -> None:
    rule = make_rule(cron=cron, zone=BERLIN)
    known = rule.after(datetime(2026, 10, 24, 12, tzinfo=UTC))
    for late in (timedelta(seconds=1), timedelta(hours=13), timedelta(days=3)):
        counted = known
        while (following := rule.after(counted)) < known + late:
            counted = following
        assert rule.last_before(known + late, known=known) == counted


def test_a_minutely_schedule_that_nobody_looked_at_for_years_is_not_walked_through() -> None:
    rule = make_rule(cron="* * * * *", zone=BERLIN)
    known = datetime(1990, 1, 1, tzinfo=UTC)
    moment = datetime(2026, 11, 25, 12, 0, 30, tzinfo=UTC)
    assert rule.last_before(moment, known=known) == datetime(2026, 11, 25, 12, tzinfo=UTC)


def test_a_tick_is_spelled_in_utc() -> None:
    assert spelled(datetime(2026, 3, 29, 3, tzinfo=ZoneInfo(BERLIN))) == "2026-03-29T01:00:00Z"


def test_zones_are_there_where_the_system_has_none() -> None:
    code = "from producer.ticks import make_rule; print(make_rule(cron='0 3 * * *', zone='Europe/Berlin').zone)"
    environment = os.environ | {"PYTHONTZPATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "Europe/Berlin\n"

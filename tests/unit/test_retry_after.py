"""How long another side asks us to wait, in every form that is in use."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks._retry_after import LONGEST_SECONDS, retry_after, should_retry
from tests.unit.markdown import table

NOW = datetime(2015, 10, 21, 7, 28, tzinfo=UTC)
DAY = 86_400.0


def seconds(**headers: str) -> float | None:
    return retry_after({name.replace("_", "-"): text for name, text in headers.items()}, now=NOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("120", 120.0, id="seconds"),
        pytest.param("0", 0.0, id="none"),
        pytest.param("1.5", 1.5, id="a fraction, which some send"),
        pytest.param(" 3 ", 3.0, id="spaces around"),
        pytest.param("-5", 0.0, id="negative"),
        pytest.param("86401", DAY, id="more than a day"),
        pytest.param("9" * 400, DAY, id="huge"),
        pytest.param("Wed, 21 Oct 2015 07:28:30 GMT", 30.0, id="a date to come"),
        pytest.param("Wed, 21 Oct 2015 07:27:30 GMT", 0.0, id="a date past"),
        pytest.param("Wed, 21 Oct 2015 07:28:30", 30.0, id="a date without a zone"),
        pytest.param("Wed, 21 Oct 2015 07:28:30 -0000", 30.0, id="a date with the zone of nowhere"),
        pytest.param("Wed, 21 Oct 2015 09:28:30 +0200", 30.0, id="a date in another zone"),
        pytest.param("Wednesday, 21-Oct-15 07:28:30 GMT", 30.0, id="a date as in RFC 850"),
        pytest.param("Wed Oct 21 07:28:30 2015", 30.0, id="a date as C prints it"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 GMT", DAY, id="the end of time"),
        pytest.param("Wed, 21 Oct 2015 07:28:30 +99999999999999999999", None, id="a zone beyond all"),
        pytest.param("Wed, 21 Oct 99999 07:28:30 GMT", None, id="a year beyond all"),
        pytest.param("soon", None, id="a word"),
        pytest.param("", None, id="nothing"),
        pytest.param("nan", None, id="NaN"),
        pytest.param("inf", None, id="infinity"),
        pytest.param("1e3", None, id="an exponent"),
        pytest.param("1_000", None, id="Python's digits"),
        pytest.param("١٢", None, id="digits of another script"),
        pytest.param("5, 5", None, id="twice"),
        pytest.param("120s", None, id="with a unit"),
    ],
)
def test_retry_after_is_read(text: str, expected: float | None) -> None:
    assert seconds(retry_after=text) == expected


HEADERS = table("errors.md", "header", "value")


@pytest.mark.parametrize("row", HEADERS, ids=lambda row: f"{row['header']}: {row['value']}")
def test_a_wait_is_read_as_the_page_has_it(row: dict[str, str]) -> None:
    wait = retry_after({row["header"].lower(): row["value"]}, now=NOW)
    assert ("-" if wait is None else f"{round(wait, 6):g} s") == row["wait"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({"x_ratelimit_reset": "30", "x_ratelimit_remaining": "3"}, None, id="there is some left"),
        pytest.param(
            {
                "x_ratelimit_reset_requests": "1s",
                "x_ratelimit_remaining_requests": "0",
                "x_ratelimit_reset_tokens": "6m0s",
                "x_ratelimit_remaining_tokens": "12000",
            },
            1.0,
            id="only what is used up is waited for",
        ),
        pytest.param(
            {
                "x_ratelimit_reset_requests": "1s",
                "x_ratelimit_remaining_requests": "0",
                "x_ratelimit_reset_tokens": "6m0s",
                "x_ratelimit_remaining_tokens": "0",
            },
            360.0,
            id="all that is used up is waited for",
        ),
        pytest.param(
            {"x_ratelimit_reset_requests": "1s", "x_ratelimit_reset_tokens": "6m0s"}, 1.0, id="nobody says which"
        ),
        pytest.param(
            {
                "anthropic_ratelimit_tokens_reset": "2015-10-21T07:29:00Z",
                "anthropic_ratelimit_tokens_remaining": "0",
                "anthropic_ratelimit_requests_reset": "2015-10-21T07:28:01Z",
                "anthropic_ratelimit_requests_remaining": "9",
            },
            60.0,
            id="Anthropic's",
        ),
        pytest.param({"ratelimit": '"minute";r=0;t=30, "day";r=12;t=3600'}, 30.0, id="several policies in one"),
        pytest.param({"ratelimit": '"minute";r=7;t=30, "day";r=0;t=3600'}, 3600.0, id="the other of them"),
        pytest.param({"retry_after": "2", "x_ratelimit_reset": "30"}, 2.0, id="Retry-After goes first"),
        pytest.param({"retry_after": "soon", "x_ratelimit_reset": "30"}, 30.0, id="unless it cannot be read"),
        pytest.param({"x_ratelimit_reset": "-3"}, 0.0, id="negative"),
        pytest.param({"x_ratelimit_reset": "1m30"}, None, id="a duration without its last unit"),
        pytest.param({"x_ratelimit_reset": "9" * 400}, DAY, id="huge"),
        pytest.param({"x_ratelimit_reset": "1h2m3.5s"}, 3723.5, id="hours"),
    ],
)
def test_the_limits_that_an_answer_tells_of_are_read(headers: dict[str, str], expected: float | None) -> None:
    assert seconds(**headers) == expected


def test_no_header_says_nothing() -> None:
    assert retry_after({}, now=NOW) is None


def test_milliseconds_are_read() -> None:
    assert seconds(retry_after_ms="1500") == 1.5


def test_milliseconds_go_before_seconds() -> None:
    assert seconds(retry_after_ms="250", retry_after="1") == 0.25


@pytest.mark.parametrize("text", ["soon", "", "nan", "Wed, 21 Oct 2015 07:28:30 GMT"])
def test_seconds_are_taken_where_milliseconds_cannot_be_read(text: str) -> None:
    assert seconds(retry_after_ms=text, retry_after="2") == 2.0


@given(st.text(max_size=40))
@settings(max_examples=200)
@example("Wed, 21 Oct 2015 07:28:00 +999999999999999999")
def test_whatever_stands_there_the_answer_is_a_wait_within_a_day_or_none(text: str) -> None:
    wait = seconds(retry_after_ms=text, retry_after=text, ratelimit=text, x_ratelimit_reset=text)
    assert wait is None or 0 <= wait <= LONGEST_SECONDS


@pytest.mark.parametrize(
    ("text", "expected"),
    [("true", True), ("false", False), ("TRUE", True), (" false ", False), ("", None), ("maybe", None), ("1", None)],
)
def test_x_should_retry_is_read(text: str, expected: bool | None) -> None:  # noqa: FBT001  a parameter of the table
    assert should_retry({"x-should-retry": text}) is expected


def test_without_x_should_retry_nothing_is_said() -> None:
    assert should_retry({}) is None

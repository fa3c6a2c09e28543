"""Reading how long another side asks us to wait, in every form that is in use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 86_400.0

# A count of seconds beyond this is a moment of Unix time: as a wait it would be 30 years.
MOMENT_SECONDS, MOMENT_MILLISECONDS = 1e9, 1e12

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")  # float() alone would take "nan", "1_0" and digits of any script
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|us|µs|ns|h|m|s|d))+")  # as Go prints one: 1m30s, 6m0s, 120ms
_PART = re.compile(r"([0-9.]+)(ms|us|µs|ns|h|m|s|d)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
# x-ratelimit-reset-requests, anthropic-ratelimit-tokens-reset, ratelimit-reset: of what, and its remaining's name.
_RESET = re.compile(r"((?:[a-z]+-)*ratelimit-)(?:([a-z-]+)-)?reset(?:-after)?(?:-([a-z-]+))?")
# RateLimit: "default";r=0;t=30, or limit=10, remaining=0, reset=30, of the two drafts.
_FIELD = re.compile(r"\b(r|t|remaining|reset)=([0-9]+(?:\.[0-9]+)?)\b")


def retry_after(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Return the seconds to wait, or None where the headers do not say so in a way that can be read.

    ``retry-after-ms`` (milliseconds) goes before ``Retry-After`` (seconds, or an HTTP date as RFC 9110 10.2.3 has
    it), being the finer of the two; and both before the limits that an answer tells of, see `_resets`. The past is 0;
    more than a day is a day.

    Args:
        headers: Names in lower case.
        now: The current time, for dates.
    """
    for name, parse in (("retry-after-ms", _milliseconds), ("retry-after", _seconds)):
        text = headers.get(name, "").strip()
        if text and (seconds := parse(text, now)) is not None:
            return _within_a_day(seconds)
    found = list(_resets(headers, now))
    used_up = [seconds for seconds, left in found if left is not None and left <= 0]
    if used_up:  # all of them are to be waited for
        return _within_a_day(max(used_up))
    unsaid = [seconds for seconds, left in found if left is None]
    return _within_a_day(min(unsaid)) if unsaid else None


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return what ``x-should-retry`` says; None where it says nothing."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def _resets(headers: Mapping[str, str], now: datetime) -> Iterator[tuple[float, float | None]]:
    """Yield, for each limit that the headers tell of, the seconds until it is reset and what is left of it."""
    for given, text in headers.items():
        name = given.lower()
        if name == "ratelimit":
            for policy in text.split('"') if '"' in text else [text]:
                said = {field[0][0:3]: float(field[1]) for field in _FIELD.findall(policy)}
                after = said.get("t", said.get("res"))
                if after is not None:
                    yield after, said.get("r", said.get("rem"))
        elif found := _RESET.fullmatch(name):
            seconds = _reset(text.strip(), now)
            if seconds is not None:
                yield seconds, _number(headers.get(_remaining(*found.groups()), "").strip())


def _remaining(family: str, before: str | None, after: str | None) -> str:
    """Return the name of the header that says what is left of a limit."""
    return f"{family}{before}-remaining" if before else "-".join(filter(None, (f"{family}remaining", after)))


def _reset(text: str, now: datetime) -> float | None:
    number = _number(text)
    if number is not None:
        if number < MOMENT_SECONDS:
            return number
        return (number if number < MOMENT_MILLISECONDS else number / 1000) - now.timestamp()
    if _DURATION.fullmatch(text):
        return sum(float(count) * _UNITS[unit] for count, unit in _PART.findall(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _date(text, now)
    return _until(moment, now)


def _milliseconds(text: str, _now: datetime) -> float | None:
    number = _number(text)
    return None if number is None else number / 1000


def _seconds(text: str, now: datetime) -> float | None:
    number = _number(text)
    return number if number is not None else _date(text, now)


def _date(text: str, now: datetime) -> float | None:
    try:
        return _until(parsedate_to_datetime(text), now)
    except (ValueError, OverflowError):
        return None


def _until(moment: datetime, now: datetime) -> float:
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _within_a_day(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_SECONDS)

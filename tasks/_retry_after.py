"""Reading how long another side asks us to wait, in every form that is in use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 86_400.0

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")  # float() alone would take "nan", "1_0" and digits of any script


def retry_after(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Return the seconds to wait, or None where the headers do not say so in a way that can be read.

    ``retry-after-ms`` (milliseconds) goes before ``Retry-After`` (seconds, or an HTTP date as RFC 9110 10.2.3 has
    it), being the finer of the two. The past is 0; more than a day is a day.

    Args:
        headers: Names in lower case.
        now: The current time, for dates.
    """
    for name, parse in (("retry-after-ms", _milliseconds), ("retry-after", _seconds)):
        text = headers.get(name, "").strip()
        if text and (seconds := parse(text, now)) is not None:
            return min(max(seconds, 0.0), LONGEST_SECONDS)
    return None


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return what ``x-should-retry`` says; None where it says nothing."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def _milliseconds(text: str, _now: datetime) -> float | None:
    number = _number(text)
    return None if number is None else number / 1000


def _seconds(text: str, now: datetime) -> float | None:
    number = _number(text)
    if number is not None:
        return number
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - now).total_seconds()


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None

"""The ticks of a schedule: at which moments it is due. Pure: reads no clock and no ledger.

A rule has one set of ticks, the same for whoever computes it, so a tick can be an idempotency key. `cronsim` reads the
cron expression and walks the calendar on wall-clock time alone; which moments a wall-clock time names when the clocks
change is decided here, since stepping hour by hour goes wrong where they change by half an hour.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

from producer.canonical import shown
from producer.errors import InvalidSchedule

__all__ = ["Rule", "make_rule", "spelled"]

# Intervals are counted from here, so that every worker, and the same interval declared anew, has the same ticks.
ANCHOR = datetime(1970, 1, 1, tzinfo=UTC)
# What has no tick within so long never fires.
HORIZON = timedelta(days=366 * 50)
CRON_LIMIT = 255
FIELDS = 5
INSTANT = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
LOCAL = "localtime"
SOME_DAY = datetime(2026, 1, 1)  # noqa: DTZ001  wall-clock time


@dataclass(frozen=True, slots=True)
class Rule:
    """When a schedule is due; made by `make_rule`, which checks it.

    Attributes:
        cron: Five fields: minute, hour, day of the month, month, day of the week; None for an interval.
        every: Seconds between two ticks, counted from 1970-01-01 00:00 UTC; None for a cron expression.
        zone: The time zone in which a cron expression is meant, such as ``Europe/Berlin``.
    """

    cron: str | None
    every: int | None
    zone: str

    def after(self, moment: datetime) -> datetime:
        """Return the first tick later than `moment`, in UTC.

        Raises:
            InvalidSchedule: If there is none within fifty years, or this machine knows no such zone.
        """
        if self.every is not None:
            gap = timedelta(seconds=self.every)
            return ANCHOR + ((moment - ANCHOR) // gap + 1) * gap
        clock = _Clock(_zone(self.zone), follows_clock=_follows_the_clock(str(self.cron)))
        found = clock.first_after(str(self.cron), moment.astimezone(UTC))
        if found is None:
            raise InvalidSchedule("cron", f"{shown(self.cron)} never fires in {self.zone} within fifty years")
        return found

    def from_(self, moment: datetime) -> Iterator[datetime]:
        """Yield the ticks from `moment` on, the first of which may be `moment` itself."""
        tick = self.after(moment - INSTANT)
        while True:
            yield tick
            tick = self.after(tick)

    def last_before(self, moment: datetime, *, known: datetime) -> datetime:
        """Return the last tick earlier than `moment`; `known` is one that is.

        Looks back hour by hour at first, so that a minutely schedule's year without workers is not walked through.
        """
        span = timedelta(hours=1)
        while True:
            begin = max(known, moment - span)
            last = None
            for tick in self.from_(begin):
                if tick >= moment:
                    break
                last = tick
            if last is not None:
                return last
            if begin == known:
                return known
            span *= 8


def make_rule(*, cron: object = None, every: object = None, zone: object = None) -> Rule:
    """Check when a schedule is to be due.

    Args:
        cron: Five fields, as cron has them; names of months and days, ``L`` and ``MON#2`` too.
        every: Seconds, whole, 1 or more; or a `timedelta` of so many.
        zone: The cron expression's time zone; None is UTC.

    Raises:
        InvalidSchedule: If it cannot be read, names a date that no year has, or never fires.
    """
    if (cron is None) == (every is None):
        raise InvalidSchedule("cron", "a schedule has either cron or every; give one of the two")
    if every is not None:
        if zone is not None:
            raise InvalidSchedule("zone", "belongs to cron; an interval is the same in every zone")
        return Rule(None, _checked_interval(every), "UTC")
    zone = "UTC" if zone is None else zone
    _check_zone(zone)
    rule = Rule(_checked_cron(cron), None, str(zone))
    rule.after(SOME_DAY.replace(tzinfo=UTC))
    return rule


def spelled(tick: datetime) -> str:
    """Return a tick as the idempotency key has it: ``2026-11-25T02:00:00Z``."""
    return f"{tick.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, slots=True)
class _Clock:
    """A zone's wall clock.

    Attributes:
        follows_clock: Whether the schedule runs whenever the clock shows a matching time: never where that is skipped,
            twice where it is shown twice. Else each wall-clock time is run once: right after the gap, where it is
            skipped.
    """

    zone: ZoneInfo
    follows_clock: bool

    def first_after(self, cron: str, moment: datetime) -> datetime | None:
        """Return the first moment after `moment` at which the expression is due; None where there is none."""
        here = moment.astimezone(self.zone)
        begin = now = here.replace(tzinfo=None, fold=0)
        if self.follows_clock:
            # Shown for the first of two times: what the clock shows again may be earlier than what it shows now.
            begin -= max(_offset(here.replace(fold=0)) - _offset(here.replace(fold=1)), timedelta(0))
        found: list[datetime] = []
        for wall in CronSim(cron, begin):
            found += [instant for instant in self._instants(wall) if instant > moment]
            if wall > now and (found or wall - now > HORIZON):
                break
        return min(found, default=None)

    def _instants(self, wall: datetime) -> list[datetime]:
        first, second = (wall.replace(tzinfo=self.zone, fold=fold) for fold in (0, 1))
        if _is_shown(first):
            return [first.astimezone(UTC), second.astimezone(UTC)][: 2 if self.follows_clock else 1]
        if self.follows_clock:
            return []
        while not _is_shown(first):
            first += MINUTE  # of the wall clock's
        return [first.astimezone(UTC)]


def _offset(local: datetime) -> timedelta:
    return local.utcoffset() or timedelta(0)


def _is_shown(local: datetime) -> bool:
    """Whether a wall clock ever shows this time: not where it is set forward over it."""
    return local.astimezone(UTC).astimezone(local.tzinfo).replace(tzinfo=None) == local.replace(tzinfo=None)


def _follows_the_clock(cron: str) -> bool:
    """As Debian's cron has it: where the minute or the hour begins with a star, the job is about the clock's pace."""
    minute, hour, *_ = cron.split()
    return minute.startswith("*") or hour.startswith("*")


def _checked_interval(every: object) -> int:
    seconds = every.total_seconds() if isinstance(every, timedelta) else every
    if isinstance(seconds, float) and seconds.is_integer():
        seconds = int(seconds)
    if type(seconds) is not int or seconds < 1:
        raise InvalidSchedule("every", f"{shown(every)} is not a whole number of seconds, 1 or more")
    if seconds > HORIZON.total_seconds():
        raise InvalidSchedule("every", f"{shown(every)} seconds are more than fifty years: it never fires")
    return seconds


def _checked_cron(cron: object) -> str:
    if not isinstance(cron, str) or len(cron) > CRON_LIMIT or not cron.isascii():
        raise InvalidSchedule("cron", f"{shown(cron)} must be text such as '0 3 * * 1-5'")
    fields = cron.upper().split()
    if len(fields) != FIELDS:
        raise InvalidSchedule(
            "cron",
            f"{shown(cron)} has {len(fields)} fields, not {FIELDS}: minute, hour, day of the month, month, day of the"
            " week; seconds are every=",
        )
    minute, hour, day, month, _ = fields
    if _fault([minute, hour, day, month, "*"]) and not _fault([minute, hour, day, "*", "*"]):
        raise InvalidSchedule(
            "cron", f"{shown(cron)}: there is no day {day} in month {month} of any year; the last of a month is L"
        )
    fault = _fault(fields)
    if fault:
        raise InvalidSchedule(
            "cron",
            f"{shown(cron)}: {fault}; the fields are minute 0-59, hour 0-23, day of the month 1-31 or L, month 1-12 or"
            " JAN-DEC, day of the week 0-7 or SUN-SAT",
        )
    return " ".join(fields)


def _fault(fields: list[str]) -> str | None:
    try:
        CronSim(" ".join(fields), SOME_DAY)
    except CronSimError as error:
        return str(error).lower()
    return None


def _check_zone(name: object) -> None:
    """Refuse what is no zone that has the same ticks on each machine, although this one may have a file of the name."""
    if name == LOCAL:
        raise InvalidSchedule("zone", f"{LOCAL!r} is another on each machine; write one such as 'Europe/Berlin'")
    _zone(name)
    if name not in _zones():  # those that count leap seconds, say: right/UTC
        raise _unknown(name)


def _zone(name: object) -> ZoneInfo:
    try:
        return ZoneInfo(name)  # type: ignore[arg-type]  # what is no text is refused below
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError, AttributeError) as error:
        raise _unknown(name) from error


def _unknown(name: object) -> InvalidSchedule:
    near = difflib.get_close_matches(str(name), _zones() - {LOCAL}, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "write one such as 'Europe/Berlin'"
    return InvalidSchedule("zone", f"{shown(name)} is not a time zone; {hint}")


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())  # walks over a folder of hundreds of files

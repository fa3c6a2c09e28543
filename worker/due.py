"""Which ticks of a schedule get a job now, and from which one on it is looked at next. Pure: reads no clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from producer.declaration import Missed
from producer.ticks import Rule

# A tick is missed when no worker has looked for it so long after: a restart misses nothing.
ON_TIME = timedelta(seconds=60)
# Of one schedule in one round; the next ones follow in the next round, at once.
TICKS_A_ROUND = 100


@dataclass(frozen=True, slots=True)
class Due:
    """What a round makes of a schedule.

    Attributes:
        ticks: Those that get a job, the oldest first.
        next_tick: The first one that this round has not looked at; in the past where there is more to make up for.
        missed_since: The first tick that nobody had looked for in time; None where there is none.
    """

    ticks: tuple[datetime, ...]
    next_tick: datetime
    missed_since: datetime | None


def due(rule: Rule, missed: Missed, next_tick: datetime, now: datetime) -> Due:
    """Say which ticks from `next_tick` to `now` get a job.

    Those of the last minute get one each. Of older ones, ``skip`` passes over all, ``latest`` over all but the last,
    and over that one too if a later one is due, ``all`` over none.

    Raises:
        InvalidSchedule: If the rule has no further tick, or its zone is not known here.
    """
    on_time_from = now - ON_TIME
    missed_since = next_tick if next_tick < on_time_from else None
    ticks: list[datetime] = []
    coming = rule.from_(next_tick if missed_since is None or missed == "all" else on_time_from)
    for tick in coming:
        if tick > now or len(ticks) == TICKS_A_ROUND:
            break
        ticks.append(tick)
    if missed_since is not None and missed == "latest" and not ticks:
        ticks = [rule.last_before(on_time_from, known=missed_since)]
    return Due(tuple(ticks), tick, missed_since)

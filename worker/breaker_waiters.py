"""Who waits for a breaker, held to how it stands: for a closed one nobody waits on; where a call may try, one comes.

Once a breaker closes, those are let go who wait for it by then (worker/breaker_moves.py). A job that was refused just
before, and comes to wait just after, is none of these; and a Redis that was emptied says closed, and has nobody let go.
By themselves they look again, which may take minutes, since most look in vain. And those who were to try may have been
cancelled meanwhile, or be over. So every few seconds the relay of one worker of the fleet compares the two.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy.engine import Connection

from producer.breaker_words import CLOSED, HALF_OPEN, LOOKED, OPEN, held_key_of, key_of, per_second, released_key_of
from producer.ledger.breakers import Waiting, release, try_it, waiting
from tasks._dependency import dependency_behind
from worker.log import log
from worker.seldom_redis import SeldomRedis

WAITERS_SECONDS = 5.0
# Whoever comes first looks for all; the next one somewhat earlier than by his own clock. Where looking took long, a
# twentieth of the time at most is spent on it.
TURN_SECONDS, REST = 4.0, 20
# Whoever lets go very many jobs says so after each batch; it is believed for so long. Two at once would do all of it
# twice.
RELEASED_SECONDS = 5.0
# After so long the jobs of other breakers are left to the next look: the relay has other duties.
LONGEST_LOOK_SECONDS = 2.0
# By so much, and such a share, they may be late, or early: most are about to come anyway, and some are cancelled.
SLACK_SECONDS, SLACK_SHARE = 5.0, 1.25
# Redis is asked of so many breakers at a time.
TOGETHER = 1_000
MOST_TOLD = 20

FIELDS = ("state", "since", "until", "token", "lease", "job", "gap", "forced", "forced_until")


@dataclass(frozen=True, slots=True)
class Standing:
    """How a breaker stands in Redis; times in milliseconds of its clock.

    `per_second` is None where it has no rate yet, `held` whether its dependency asked for patience, and `released`
    whether somebody is letting go who waits for it.
    """

    state: str
    since: int
    until: int
    token: str
    lease: int
    job: UUID | None
    per_second: float | None
    forced: str
    forced_until: int
    held: bool
    released: bool

    def may_try(self, now: int) -> bool:
        """Whether the next call that comes is let through to try."""
        if self.held:
            return False
        if self.state == OPEN:
            return 0 < self.forced_until <= now if self.forced == OPEN else self.until <= now
        return self.state == HALF_OPEN and (not self.token or self.lease <= now)


class Waiters:
    """Compares them, for one relay, in its thread."""

    def __init__(self, redis: SeldomRedis) -> None:
        """Ask nothing yet. Where the broker is no Redis, nothing is compared: all come back by themselves."""
        self._redis = redis

    def look(self, connection: Connection) -> int:
        """Bring forward who waits for nothing any more, if nobody looked just now; return how many.

        A crash half-way leaves the rest with the times at which they come back by themselves, and to the next look.

        Args:
            connection: In autocommit.
        """
        turn = round(TURN_SECONDS * 1000)
        if not self._redis.ask(lambda client: client.set(LOOKED, 1, nx=True, px=turn)):
            return 0
        began = time.monotonic()
        found = waiting(connection)
        rest = round((time.monotonic() - began) * REST * 1000)
        if rest > turn:
            self._redis.ask(lambda client: client.pexpire(LOOKED, rest))
        # From any of them on: there may be more than there is time for.
        first, began = secrets.randbelow(max(len(found), 1)), time.monotonic()
        found = found[first:] + found[:first]
        woken: dict[str, int] = {}
        for each, standing, now in self._standings(found):
            if time.monotonic() - began > LONGEST_LOOK_SECONDS:
                break
            if count := self._bring_forward(connection, each, standing, now):
                woken[each.name] = count
        if woken:
            log.info("breaker.woken", jobs=sum(woken.values()), breakers=dict([*woken.items()][:MOST_TOLD]))
        return sum(woken.values())

    def _bring_forward(self, connection: Connection, late: Waiting, standing: Standing, now: int) -> int:
        if standing.state != CLOSED:
            if standing.may_try(now) and late.first_seconds > SLACK_SECONDS:
                return try_it(connection, late.name, last=standing.job)
            return 0
        if standing.released or now - standing.since < SLACK_SECONDS * 1000:
            return 0  # somebody lets them go, or is about to
        # Of one that Redis has forgotten, the code knows.
        rate = standing.per_second or dependency_behind(late.name).release_per_second
        # The next one comes within a gap, and the others behind it.
        soonest, latest = (late.jobs - 1) / rate, late.jobs / rate
        if _is_within(late.last_seconds, latest) and _is_within(soonest, late.last_seconds):
            return 0  # they are let go already
        return release(connection, late.name, per_second=rate, goes_on=partial(say_released, self._redis))

    def _standings(self, found: Sequence[Waiting]) -> Iterator[tuple[Waiting, Standing, int]]:
        for start in range(0, len(found), TOGETHER):
            some = found[start : start + TOGETHER]
            now, standings = self._redis.ask(partial(_ask, waiting=some)) or (0, [])
            for each, standing in zip(some, standings, strict=bool(standings)):
                if standing is not None:
                    yield each, standing, now


def say_released(redis: SeldomRedis, name: str) -> None:
    """Have nobody else let go meanwhile who waits for a breaker."""
    redis.ask(lambda client: client.set(released_key_of(name), 1, px=round(RELEASED_SECONDS * 1000)))


def _ask(client: Any, waiting: Sequence[Waiting]) -> tuple[int, list[Standing | None]]:
    seconds, microseconds = client.time()
    together = client.pipeline(transaction=False)
    for each in waiting:
        together.hmget(key_of(each.name), FIELDS)
        together.exists(held_key_of(each.name))
        together.exists(released_key_of(each.name))
    found = together.execute(raise_on_error=False)
    standings = [_standing(*three) for three in zip(found[::3], found[1::3], found[2::3], strict=True)]
    return seconds * 1000 + microseconds // 1000, standings


def _standing(found: Any, held: Any, released: Any) -> Standing | None:
    """Return how a breaker stands; None where what lies there is somebody else's, and no breaker."""
    try:
        facts = dict(zip(FIELDS, (b"" if each is None else each for each in found), strict=True))
        return Standing(
            state=facts["state"].decode() or CLOSED,
            since=int(float(facts["since"] or 0)),
            until=int(float(facts["until"] or 0)),
            token=facts["token"].decode(),
            lease=int(float(facts["lease"] or 0)),
            job=UUID(facts["job"].decode()) if facts["job"] else None,
            per_second=per_second(facts["gap"].decode()) if facts["gap"] else None,
            forced=facts["forced"].decode(),
            forced_until=int(float(facts["forced_until"] or 0)),
            held=bool(held),
            released=bool(released),
        )
    except (TypeError, ValueError, ArithmeticError):  # Redis's own error among them, which is no list
        return None


def _is_within(seconds: float, allowed: float) -> bool:
    return seconds <= allowed * SLACK_SHARE + SLACK_SECONDS

"""The fleet's breakers as operators have them: how each stands, what it went through, and a word that overrides it.

An operator's word is the whole fleet's at once, and audited: it is a transition with the operator's name and reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy.engine import Connection

from producer.acting import actor, check_reason
from producer.breaker_scripts import BUCKETS, FORCE, LOOK
from producer.breaker_words import (
    CLOSED,
    HOLDS,
    NAME_LIMIT,
    NAMES,
    OPEN,
    Transition,
    as_text,
    held_key_of,
    keys_of,
    line_key_of,
    moment,
    transition_of,
)
from producer.broker import is_redis, load_redis, redis_client
from producer.canonical import shown
from producer.catalogue import Catalogue
from producer.envelope import NAME_LIMIT as WHO_LIMIT
from producer.envelope import check_name
from producer.errors import BreakerNotFound, BreakersUnavailable, InvalidRequest
from producer.ledger import breakers as ledger
from producer.ledger.acts import act_of, on_record

if TYPE_CHECKING:
    from producer.settings import Settings

Word = Literal["open", "close", "auto"]
WORDS: tuple[Word, ...] = ("open", "close", "auto")
WANTS: Mapping[Word, str] = {"open": OPEN, "close": CLOSED, "auto": ""}

ANSWER_SECONDS = 2.0
# A word that was forgotten should not stand for ever; one without an end is for whoever means that.
LONGEST_WORD_SECONDS = 30 * 86_400.0
MOST_LISTED = 1_000
# How fast who waits for a hold comes back where no transition says.
RELEASE_PER_SECOND = 10.0

Read = Callable[[Callable[[Connection], Any]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRecord:
    """How a breaker stands, in the whole fleet.

    Attributes:
        name: The dependency's, and what else it is kept apart by: ``llm``, ``llm tenant=acme``.
        state: ``closed`` | ``open`` | ``half-open``; not of processes that have no Redis.
        forced: An operator's word that overrides it: ``open`` or ``closed``; None where it goes by its own judgement.
        forced_until: Until when that holds; None is until it is taken back.
        since: When it last moved; None where it never did, or a week ago.
        until: While it is open: when a call may try; None where it is not, or an operator said for good.
        failures_in_a_row: Since it is closed, in the whole fleet.
        calls: That ended in the window, as far as they were told of: successes are only where something fails.
        failed: Of these.
        slow: Of these.
        reason: Of its last transition.
        who: Brought that about: a worker, or an operator.
        held: This tenant's jobs that wait for it.
        next_due: When the first of them comes back by itself; None where none waits.
        hold_until: Until when the dependency asked to be left alone (429); None where it does not ask for that now.
        hold_seconds: How long that is from now.
        hold_reason: What it said then; empty where there is no hold.
        hold_jobs: This tenant's jobs that wait because it did.
        hold_next_due: When the first of those looks again; None where none waits.
    """

    name: str
    state: str
    forced: str | None
    forced_until: datetime | None
    since: datetime | None
    until: datetime | None
    failures_in_a_row: int
    calls: int
    failed: int
    slow: int
    reason: str
    who: str
    held: int
    next_due: datetime | None
    hold_until: datetime | None = None
    hold_seconds: float | None = None
    hold_reason: str = ""
    hold_jobs: int = 0
    hold_next_due: datetime | None = None


class Breakers:
    """What ``producer.breakers`` is. Safe to share between threads; it connects to Redis anew for each question."""

    def __init__(self, settings: Settings, catalogue: Catalogue, read: Read) -> None:
        """Come from a Producer, with its connections."""
        self._settings, self._catalogue, self._read = settings, catalogue, read

    def list(self) -> Sequence[BreakerRecord]:
        """Return every breaker of which anything is known, by name: declared, moved in the last week, or waited for.

        A dependency without a breaker is among them for as long as it is held, or jobs wait because it was.

        Raises:
            BreakersUnavailable: If Redis is away, or the broker is none.
            LedgerUnavailable: If Postgres is away.
        """
        waiting = self._waiting()
        with self._redis() as redis:
            names = sorted(self._names(redis) | waiting.names)
            looked = [(name, _look(redis, name)) for name in names]
        return [self._record(name, answer, waiting) for name, answer in looked]

    def get(self, name: str) -> BreakerRecord:
        """Return how one breaker stands.

        Raises:
            BreakerNotFound: If nothing is known of it.
            BreakersUnavailable: If Redis is away, or the broker is none.
        """
        waiting = self._waiting()
        with self._redis() as redis:
            self._check_known(redis, name, waiting)
            answer = _look(redis, name)
        return self._record(name, answer, waiting)

    def history(self, name: str, *, limit: int = 50) -> Sequence[Transition]:
        """Return the latest transitions of a breaker, the newest first; empty where it had none."""
        check_name("name", name, NAME_LIMIT)
        found: list[Transition] = self._read(lambda c: ledger.history(c, name, limit=limit))
        return found

    def force(
        self,
        name: str,
        word: Word,
        *,
        reason: str,
        seconds: float | None = None,
        who: str | None = None,
        new: bool = False,
    ) -> BreakerRecord:
        """Override a breaker for the whole fleet, and return how it stands then.

        Args:
            name: The breaker's.
            word: ``open``: nobody calls it. ``close``: everybody does, whatever fails; who waited comes back. ``auto``
                takes that back: what was closed counts anew. Where it is open, whoever opened it and for however long,
                one call may try at once. Both end a hold (429) that stands, and let go who waits for that.
            reason: Kept in its history.
            seconds: Until it goes by its own judgement again, by itself; None is until somebody says ``auto``.
            who: Says so; by default the user that this process runs as.
            new: Whether it may be one of which nothing is known yet, such as a host that nobody has called.

        Raises:
            InvalidRequest: If an argument cannot be; nothing was done.
            BreakerNotFound: If nothing is known of it, and it is not `new`.
            BreakersUnavailable: If Redis is away, or the broker is none. Whether it has heard, nobody knows; saying it
                again is safe.
        """
        milliseconds = _checked(name, word, reason, seconds)
        said_by = actor(who)
        check_name("who", said_by.who, WHO_LIMIT)
        with self._redis() as redis:
            if not new:
                self._check_known(redis, name, self._waiting())
            keys = [*keys_of(name), held_key_of(name), HOLDS, line_key_of(name)]
            answer = redis.eval(FORCE, len(keys), *keys, "", name, said_by.who, "", WANTS[word], milliseconds, reason)
        # Any worker's sweep would do so, too; but there may be none.
        moves = [transition_of(as_text(flat)) for flat in answer[-1]]
        self._read(lambda c: ledger.land(c, moves))
        if word != "open":
            rate = moves[-1].release_per_second if moves else RELEASE_PER_SECOND
            self._read(lambda c: ledger.release_held(c, name, per_second=rate))
        act = act_of(said_by, self._settings.tenant, "breaker", name, reason=reason, word=word, seconds=seconds)
        self._read(lambda c: on_record(c, act, lambda: True))
        return self.get(name)

    def _waiting(self) -> _Waiting:
        tenant = self._settings.tenant
        return _Waiting(
            breaker=self._read(lambda c: ledger.held(c, tenant)), hold=self._read(lambda c: ledger.patient(c, tenant))
        )

    def _names(self, redis: Any) -> set[str]:
        seconds, microseconds = redis.time()
        listed = redis.zrevrange(NAMES, 0, MOST_LISTED - 1)
        now = seconds * 1000 + microseconds // 1000
        listed += redis.zrevrangebyscore(HOLDS, "+inf", f"({now}", start=0, num=MOST_LISTED)
        known = {name.decode() for name in listed}
        published = self._catalogue.read().values()
        return known | {str(each.policy["dependency"]) for each in published if each.policy.get("breaker")}

    def _check_known(self, redis: Any, name: str, waiting: _Waiting) -> None:
        check_name("name", name, NAME_LIMIT)
        names = self._names(redis) | waiting.names
        if name in names or redis.exists(keys_of(name)[0], held_key_of(name)):
            return
        near = get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(names))}" if names else ""
        raise BreakerNotFound(f"nothing is known of a breaker {shown(name)}{hint}")

    def _record(self, name: str, answer: Any, waiting: _Waiting) -> BreakerRecord:
        moves, now, flat, hold_ms, why = answer
        if moves:
            found = [transition_of(as_text(each)) for each in moves]
            self._read(lambda c: ledger.land(c, found))
        hold = None
        if hold_ms > 0:
            hold = _Hold(moment(now + hold_ms), hold_ms / 1000, why.decode(errors="replace"))
        return _record_of(name, as_text(flat), float(now), hold, waiting)

    @contextmanager
    def _redis(self) -> Iterator[Any]:
        url = self._settings.redis_url
        if not is_redis(url):
            raise BreakersUnavailable("the broker is no Redis, so that each worker process breaks by itself")
        load_redis()
        import redis  # noqa: PLC0415  see load_redis
        from redis.backoff import NoBackoff  # noqa: PLC0415  as above
        from redis.retry import Retry  # noqa: PLC0415  as above

        timeouts = {"socket_timeout": ANSWER_SECONDS, "socket_connect_timeout": ANSWER_SECONDS}
        try:
            with redis_client(url, retry=Retry(NoBackoff(), 0), **timeouts) as client:
                yield client
        except redis.RedisError as error:
            problem = "Redis cannot be asked, so that each worker process breaks by itself"
            raise BreakersUnavailable(f"{problem}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Who waits, by the name of whom for: for its breaker, and since it asked for patience."""

    breaker: Mapping[str, ledger.Held]
    hold: Mapping[str, ledger.Held]

    @property
    def names(self) -> set[str]:
        return self.breaker.keys() | self.hold.keys()


@dataclass(frozen=True, slots=True)
class _Hold:
    """Until when a dependency asked to be left alone, how long that is, and what it said."""

    until: datetime
    seconds: float
    why: str


def _look(redis: Any, name: str) -> Any:
    return redis.eval(LOOK, 4, *keys_of(name), held_key_of(name), "", name, "", "")


def _record_of(name: str, kept: Mapping[str, str], now: float, hold: _Hold | None, waiting: _Waiting) -> BreakerRecord:
    held, patient = waiting.breaker.get(name), waiting.hold.get(name)
    state, forced = kept.get("state", CLOSED), kept.get("forced") or None
    until, forced_until, since = (float(kept.get(word) or 0) for word in ("until", "forced_until", "since"))
    window = _window(kept, now)
    return BreakerRecord(
        name=name,
        state=state,
        forced=forced,
        forced_until=moment(forced_until) if forced and forced_until else None,
        since=moment(since) if since else None,
        until=moment(until) if state == OPEN and until else None,
        failures_in_a_row=int(kept.get("failed") or 0),
        calls=window["ok"] + window["bad"],
        failed=window["bad"],
        slow=window["slow"],
        reason=kept.get("reason", ""),
        who=kept.get("who", ""),
        held=0 if held is None else held.jobs,
        next_due=None if held is None else held.next_due,
        hold_until=None if hold is None else hold.until,
        hold_seconds=None if hold is None else hold.seconds,
        hold_reason="" if hold is None else hold.why,
        hold_jobs=0 if patient is None else patient.jobs,
        hold_next_due=None if patient is None else patient.next_due,
    )


def _window(kept: Mapping[str, str], now: float) -> dict[str, int]:
    current = int(now // float(kept.get("bucket") or 1))
    there = [n for n in range(BUCKETS) if current - int(kept.get(f"b{n}", -BUCKETS)) < BUCKETS]
    return {word: sum(int(kept.get(f"{word}{n}") or 0) for n in there) for word in ("ok", "bad", "slow")}


def _checked(name: str, word: str, reason: Any, seconds: float | None) -> int:
    """Return the milliseconds for which a word is to hold; 0 is for good."""
    check_name("name", name, NAME_LIMIT)
    if word not in WORDS:
        raise InvalidRequest("word", f"{shown(word)} is not {', '.join(WORDS)}")
    if not isinstance(reason, str) or not reason.strip():
        raise InvalidRequest("reason", "is missing: say why, for whoever finds the breaker so")
    check_reason(reason)
    if seconds is None:
        return 0
    if word == "auto":
        raise InvalidRequest("seconds", "belongs to open and close; auto ends a word")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= LONGEST_WORD_SECONDS:
        raise InvalidRequest("seconds", f"{shown(seconds)} is not from 1 to {LONGEST_WORD_SECONDS:.0f}")
    return round(seconds * 1000)

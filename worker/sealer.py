"""The sealer: has every event be part of a seal about two seconds after it was committed. In every worker, no leader.

It follows the events by their time. An event may be committed long after its time, by a caller's own transaction: so a
span is done with only once every transaction that had begun by its end is over. Until then it is sealed as far as it
can be seen, noted as late, and gone over once more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.engine import Connection

from producer.ledger.acts import ACTS_NOTHING
from producer.ledger.engine import transaction_on
from producer.ledger.seals import (
    ACTS_HEAD,
    CHAINS,
    FIRST,
    LAST,
    LOOK,
    NOTHING_BEFORE,
    OURS,
    PLAN,
    SEAL_LOCK,
    WRITE,
    Seal,
    SealKey,
    hash_of,
)
from worker.log import log

SEAL_SECONDS = 1.0
# A span is no longer, so that whoever catches up does not hold the relay: the next look takes the next.
LONGEST_SPAN = timedelta(seconds=5)
# To seal one costs Postgres less than 8 µs (`make bench` says what), so this is a twentieth of one core at most, of the
# whole fleet's database. What is more waits: the record falls behind while far more than a thousand jobs a second end,
# and catches up after.
EVENTS_PER_SECOND = 6_000.0
# Where transactions are always under way that are older than the last span, so many wait to be gone over again.
MOST_LATE = 100


@dataclass(frozen=True, slots=True)
class _Look:
    """When this process looked, and the first transaction that had not begun by then."""

    at: datetime
    next: int


@dataclass(frozen=True, slots=True)
class _Late:
    """A span that is to be gone over once more, when no transaction before that one is under way any more."""

    begins: datetime
    ends: datetime
    transaction: int


class Sealer:
    """Seals for the whole fleet; whoever looks while another does leaves it to that one."""

    def __init__(self, key: SealKey | None, *, on_sealed: Callable[[Seal], None] = lambda _seal: None) -> None:
        """Seal nothing yet.

        Args:
            key: Signs the seals; None leaves them unsigned.
            on_sealed: Told of each seal that this process made, once it is committed. Must not block.
        """
        self._key, self._on_sealed = key, on_sealed
        self._began: datetime | None = None
        self._looked: _Look | None = None

    def seal(self, connection: Connection) -> None:
        """Seal what was added up to the time before.

        Args:
            connection: In autocommit.
        """
        if (sealed := self._seal(connection)) is not None:
            log.debug("seal.made", seal=sealed.n, jobs=sealed.jobs, events=sealed.events)
            self._on_sealed(sealed)

    def _seal(self, connection: Connection) -> Seal | None:
        row = connection.execute(LOOK).one()
        before, self._looked = self._looked, _Look(row.now, row.next)
        self._began = self._began or row.now
        if before is None or _is_resting(row):
            return None
        begins = row.horizon or self._began
        over = any(late.transaction <= row.oldest for late in _late_in(row.late))
        if begins >= before.at and not over:
            return None
        if not over and connection.execute(FIRST, {"begins": begins, "ends": before.at}).scalar() is None:
            return None
        with transaction_on(connection):
            if not connection.execute(OURS, {"lock": SEAL_LOCK}).scalar():
                return None
            connection.exec_driver_sql(PLAN)
            return self._write(connection, before, now=row.now, oldest=row.oldest)

    def _write(self, connection: Connection, looked: _Look, *, now: datetime, oldest: int) -> Seal | None:
        """Write the next seal, under the lock."""
        last = connection.execute(LAST).one_or_none()
        begins = self._began if last is None else last.horizon
        assert begins is not None  # noqa: S101  for the type checker; the first look has set it
        ends = _end_of(connection, begins, looked.at)
        late = _late_in(None if last is None else last.late)
        over = [each for each in late if each.transaction <= oldest]
        spans = [(each.begins, each.ends) for each in over] + ([(begins, ends)] if begins < ends else [])
        if not spans:  # another process has done it
            return None
        left = [each for each in late if each not in over]
        if begins < ends and looked.next > oldest:
            left.append(_Late(begins, ends, looked.next))
        body, jobs, events = _bodies(connection, spans)
        acts = connection.execute(ACTS_HEAD).one_or_none()
        seal = Seal(
            n=1 if last is None else last.n + 1,
            at=now,
            horizon=max(begins, ends),
            jobs=jobs,
            events=events,
            body=body,
            acts=0 if acts is None else acts.n,
            acts_hash=ACTS_NOTHING if acts is None else bytes(acts.hash),
            previous=NOTHING_BEFORE if last is None else bytes(last.hash),
            hash=b"",
            key_id=None if self._key is None else self._key.id,
            signature=None,
        )
        digest = hash_of(seal)
        seal = replace(seal, hash=digest, signature=None if self._key is None else self._key.sign(digest))
        facts = {name: getattr(seal, name) for name in Seal.__dataclass_fields__}
        connection.execute(WRITE, facts | {"late": _as_json(left)})
        return seal


def _is_resting(row: Any) -> bool:
    """Whether the last seal was so large that the next has to wait, whoever made it."""
    return row.at is not None and row.now < row.at + timedelta(seconds=row.events / EVENTS_PER_SECOND)


def _end_of(connection: Connection, begins: datetime, ends: datetime) -> datetime:
    """Return until when the next seal goes: no further than a few seconds from the first event that it has."""
    if ends - begins <= LONGEST_SPAN:
        return ends
    first = connection.execute(FIRST, {"begins": begins, "ends": ends}).scalar()
    return ends if first is None else min(ends, first + LONGEST_SPAN)


def _bodies(connection: Connection, spans: list[tuple[datetime, datetime]]) -> tuple[bytes, int, int]:
    body, jobs, events = b"", 0, 0
    for begins, ends in spans:
        row = connection.execute(CHAINS, {"begins": begins, "ends": ends}).one()
        body, jobs, events = body + bytes(row.body or b""), jobs + row.jobs, events + int(row.events)
    return body, jobs, events


def _late_in(text: str | None) -> list[_Late]:
    rows: list[Any] = [] if text is None else json.loads(text)
    return [_Late(datetime.fromisoformat(b), datetime.fromisoformat(e), transaction) for b, e, transaction in rows]


def _as_json(late: list[_Late]) -> str | None:
    while len(late) > MOST_LATE:
        one, other, *rest = late
        late = [_Late(one.begins, other.ends, max(one.transaction, other.transaction)), *rest]
    rows = [[each.begins.isoformat(), each.ends.isoformat(), each.transaction] for each in late]
    return json.dumps(rows) if rows else None

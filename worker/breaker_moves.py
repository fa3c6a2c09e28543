"""Writing down what breakers went through: every worker's relay reads the stream of transitions, the ledger keeps each.

Whoever moved a breaker wrote it into the stream in the same breath, so that a crash between the two loses nothing: any
other worker finds it there. One of them writes it down, and that one alone tells whoever wants to know.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import redis
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DataError, IntegrityError

from producer.breaker_words import MOVES, Transition, transition_of
from producer.broker import bounded_redis, is_redis, redis_client
from producer.ledger.breakers import land
from worker.fleet import AWAY_SECONDS
from worker.log import log

SWEEP_BATCH = 500
# What Redis has, as it has it: what is no text is no reason to read nothing.
Entry = tuple[bytes, Mapping[bytes, bytes]]


class Moves:
    """Reads the stream, for one relay, in its thread. Connects at the first use."""

    def __init__(self, redis_url: str, *, landed: Callable[[Sequence[Transition]], None] = lambda _: None) -> None:
        """Connect nothing yet.

        Args:
            redis_url: The broker's. Where that is no Redis, breakers are each process's own, and nothing is read.
            landed: Told of each transition in one worker of the fleet, once the ledger has it. This is where alerts
                hear of breakers; it must not wait for anything.
        """
        self._url = redis_url if is_redis(redis_url) else None
        self._landed = landed
        self._client: Any = None
        self._after = b"0"  # what was read before this worker began may not be in the ledger
        self._quiet_until = 0.0

    def sweep(self, connection: Connection) -> int:
        """Write down what the ledger does not have yet, and let go who waited for what closed; return how many.

        Args:
            connection: In autocommit.
        """
        entries = self._read()
        if not entries:
            return 0
        landed = _land(connection, list(_transitions(entries)))
        self._after = entries[-1][0]  # only now: what was not written down is read again
        for move in landed:
            log.info(
                "breaker.noted", breaker=move.name, was=move.was, becomes=move.becomes, reason=move.reason, who=move.who
            )
        if landed:
            self._landed(landed)
        return len(entries)

    def _read(self) -> list[Entry]:
        if self._url is None or time.monotonic() < self._quiet_until:
            return []
        try:
            if self._client is None:
                self._client = redis_client(self._url, protocol=2, **bounded_redis())
            found = self._client.xread({MOVES: self._after}, count=SWEEP_BATCH)
        except redis.RedisError:  # whoever asks for a breaker says so; here nothing is late that is not late anyway
            self._quiet_until = time.monotonic() + AWAY_SECONDS
            return []
        return [entry for _, entries in found for entry in entries]


def _transitions(entries: Iterable[Entry]) -> Iterator[Transition]:
    """Yield what can be read; one entry of somebody else's must not keep the relay from its other duties."""
    for number, fields in entries:
        try:
            yield transition_of({name.decode(): value.decode() for name, value in fields.items()})
        except (KeyError, ValueError, ArithmeticError) as error:
            log.error("breaker.set_aside", entry=number.decode(), error=f"{type(error).__name__}: {error}")


def _land(connection: Connection, moves: Sequence[Transition]) -> list[Transition]:
    """Have the ledger keep what it takes; of what it refuses, each by itself."""
    try:
        return land(connection, moves)
    except (DataError, IntegrityError):  # one of them, and nothing was written
        pass
    landed: list[Transition] = []
    for move in moves:
        try:
            landed += land(connection, [move])
        except (DataError, IntegrityError) as error:
            log.error("breaker.set_aside", entry=f"{move.name} {move.epoch}", error=str(error.orig))
    return landed

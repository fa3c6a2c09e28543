"""Writing down what breakers went through: every worker's relay reads the stream of transitions, the ledger keeps each.

Whoever moved a breaker wrote it into the stream in the same breath, so that a crash between the two loses nothing: any
other worker finds it there. One of them writes it down, and that one alone tells whoever wants to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DataError, IntegrityError

from producer.breaker_words import MOVES, Transition, transition_of
from producer.ledger.breakers import land
from worker.breaker_waiters import say_released
from worker.log import log
from worker.seldom_redis import SeldomRedis

SWEEP_BATCH = 500
# What Redis has, as it has it: what is no text is no reason to read nothing.
Entry = tuple[bytes, Mapping[bytes, bytes]]


class Moves:
    """Reads the stream, for one relay, in its thread."""

    def __init__(self, redis: SeldomRedis, *, landed: Callable[[Sequence[Transition]], None] = lambda _: None) -> None:
        """Ask nothing yet.

        Args:
            redis: The relay's. Where the broker is none, breakers are each process's own, and nothing is read.
            landed: Told of each transition in one worker of the fleet, once the ledger has it. This is where alerts
                hear of breakers; it must not wait for anything.
        """
        self._redis = redis
        self._landed = landed
        self._after = b"0"  # what was read before this worker began may not be in the ledger

    def sweep(self, connection: Connection) -> int:
        """Write down what the ledger does not have yet, and let go who waited for what closed; return how many.

        Args:
            connection: In autocommit.
        """
        entries = self._read()
        if not entries:
            return 0
        goes_on = partial(say_released, self._redis)
        landed = _land(partial(land, connection, goes_on=goes_on), list(_transitions(entries)))
        self._after = entries[-1][0]  # only now: what was not written down is read again
        for move in landed:
            log.info(
                "breaker.noted", breaker=move.name, was=move.was, becomes=move.becomes, reason=move.reason, who=move.who
            )
        if landed:
            self._landed(landed)
        return len(entries)

    def _read(self) -> list[Entry]:
        found = self._redis.ask(lambda client: client.xread({MOVES: self._after}, count=SWEEP_BATCH))
        return [entry for _, entries in found or [] for entry in entries]


def _transitions(entries: Iterable[Entry]) -> Iterator[Transition]:
    """Yield what can be read; one entry of somebody else's must not keep the relay from its other duties."""
    for number, fields in entries:
        try:
            yield transition_of({name.decode(): value.decode() for name, value in fields.items()})
        except (KeyError, ValueError, ArithmeticError) as error:
            log.error("breaker.set_aside", entry=number.decode(), error=f"{type(error).__name__}: {error}")


def _land(keep: Callable[[Sequence[Transition]], list[Transition]], moves: Sequence[Transition]) -> list[Transition]:
    """Have the ledger `keep` what it takes; of what it refuses, each by itself."""
    try:
        return keep(moves)
    except (DataError, IntegrityError):  # one of them, and nothing was written
        pass
    landed: list[Transition] = []
    for move in moves:
        try:
            landed += keep([move])
        except (DataError, IntegrityError) as error:
            log.error("breaker.set_aside", entry=f"{move.name} {move.epoch}", error=str(error.orig))
    return landed

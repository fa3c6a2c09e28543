"""Group commit: what many attempts have to write becomes few statements and few commits.

One thread with one connection. Whatever waits when it looks goes into one statement of its kind; meanwhile more
gathers: a lone attempt waits for nothing but its own commit, and a crowd shares one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Engine
from sqlalchemy.engine import Connection

from worker.away import as_operational, is_away, is_collision
from worker.log import log
from worker.meter import meter

BATCH = 500
# How long to wait between tries to reach a ledger that is away, growing up to the last.
AWAY_PAUSES = (0.05, 0.1, 0.25, 0.5, 1.0)
# A row that somebody else has locked for longer than this must not hold up the others in its statement.
LOCK_MILLISECONDS = 250
# How long such a row, or one that met a deadlock, is left alone before it is tried again.
COLLIDED_PAUSE = 0.25
# It is tried by itself then, and hardly waited for: there may be hundreds of them, and all else waits meanwhile.
COLLIDED_LOCK_MILLISECONDS, COLLIDED_BATCH = 10, 20

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")

Write = Callable[[Connection, Sequence[Any]], Mapping[Any, Any]]


@dataclass(frozen=True, slots=True)
class Kind(Generic[R]):
    """One kind of step.

    Attributes:
        name: For the log.
        write: Takes the rows in one statement, which must be safe to repeat; answers by key, and leaves out those
            that it has nothing to say of.
        missing: The answer for a row that was left out.
        lock_milliseconds: How long its rows may be locked by others, where that is longer than for the other kinds.
    """

    name: str
    write: Write
    missing: R
    lock_milliseconds: int | None = None


class _Answer(asyncio.Future[Any]):
    """What a row is waited for with. Whoever is cut off meanwhile learns of it only once the answer is there."""

    def cancel(self, msg: Any = None) -> bool:  # noqa: ARG002  asyncio's signature
        """Decline."""
        return False


@dataclass(slots=True, eq=False)
class _Waiting:
    """A row that waits to be written.

    Attributes:
        seconds_left: For how long the ledger may still be waited for.
        not_before: On the monotonic clock; 0 is at once.
        collided: Whether somebody else had it locked when it was tried last.
        answered: Whether the ledger has; a busy loop hears of it later, and `future` knows it only then.
    """

    kind: Kind[Any]
    key: Hashable
    row: Any
    loop: asyncio.AbstractEventLoop
    future: _Answer
    seconds_left: Callable[[], float]
    not_before: float = 0.0
    collided: bool = False
    answered: bool = False


class GroupCommit:
    """Writes for one process. The thread and the connection begin with the first row."""

    def __init__(self, engine: Engine, kinds: Sequence[Kind[Any]]) -> None:
        """Start nothing yet.

        Args:
            engine: One connection of it is held for good.
            kinds: In the order in which they are written where several wait.
        """
        self._engine, self._kinds = engine, kinds
        self._asked: list[_Waiting] = []  # of the loop alone
        self._waiting: dict[str, list[_Waiting]] = {kind.name: [] for kind in kinds}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._tries = 0
        self._patience = 0  # the connection's lock_timeout, where it is known

    async def write(self, kind: Kind[R], rows: Mapping[Any, Any], *, seconds_left: Callable[[], float]) -> dict[Any, R]:
        """Write rows along with whatever else waits, and return the ledger's answer for each.

        Args:
            kind: One of this writer's.
            rows: By the key that the answers name them by.
            seconds_left: How long a ledger that is away may still be waited for; asked before each further try.

        A row that the ledger refuses is answered as one that it has nothing to say of, and never spoils others.

        Raises:
            OperationalError: If the ledger stayed away for so long.
            DBAPIError: If the ledger refused all of these rows.
        """
        if not rows:
            return {}
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(kind, key, row, loop, _Answer(loop=loop), seconds_left) for key, row in rows.items()]
        if not self._asked:
            # Once for all that this turn of the loop asks for: waking the thread for each costs more than the row.
            loop.call_soon(self._hand_over)
        self._asked.extend(waiting)
        await _all_resolved(waiting)
        errors = [each.future.exception() for each in waiting]
        if errors[0] is not None and all(errors):
            raise errors[0]
        return {w.key: kind.missing if e else w.future.result() for w, e in zip(waiting, errors, strict=True)}

    def _hand_over(self) -> None:
        asked, self._asked = self._asked, []
        with self._changed:
            for each in asked:
                self._waiting[each.kind.name].append(each)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="writer", daemon=True)
                thread.start()  # which may fail; the next to ask tries again
                self._thread = thread
            self._changed.notify()

    # ---- on the writer's thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._wait_for_rows()  # first: a ledger that is away is nobody's concern while there is nothing to write
            try:
                with self._engine.connect() as connection:
                    self._patience = 0
                    self._write_until_lost(connection)
            except Exception as error:  # noqa: BLE001  a writer that died of anything would stop its process for good
                self._pause(error)

    def _write_until_lost(self, connection: Connection) -> None:
        while True:
            for batch in self._gathered():
                try:
                    self._write(connection, batch)
                except Exception:
                    self._put_back(batch)
                    connection.invalidate()  # the next try finds whoever answers by then
                    raise
                self._tries = 0

    def _gathered(self) -> Iterator[list[_Waiting]]:
        """Wait for rows; yield those of each kind that may be written now, none twice under one key."""
        self._wait_for_rows()
        found = False
        for kind in self._kinds:
            if not self._waiting[kind.name]:  # of most kinds nothing waits, and to look takes no lock
                continue
            for most, collided in ((BATCH, False), (COLLIDED_BATCH, True)):
                if batch := self._take(kind, most, collided=collided):
                    found = True
                    yield batch
        with self._changed:
            if not found:  # only rows that somebody else has locked
                self._changed.wait(COLLIDED_PAUSE)

    def _wait_for_rows(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: any(self._waiting.values()))

    def _take(self, kind: Kind[Any], most: int, *, collided: bool) -> list[_Waiting]:
        now, taken, left = time.monotonic(), {}, []  # type: ignore[var-annotated]
        with self._changed:
            for each in self._waiting[kind.name]:
                may_be = each.collided is collided and each.not_before <= now
                if may_be and len(taken) < most and each.key not in taken:
                    taken[each.key] = each
                else:
                    left.append(each)
            self._waiting[kind.name] = left
        return list(taken.values())

    def _put_back(self, batch: Sequence[_Waiting]) -> None:
        with self._changed:
            waiting = self._waiting[batch[0].kind.name]
            waiting[:0] = [each for each in batch if not each.answered and each not in waiting]

    def _write(self, connection: Connection, batch: list[_Waiting]) -> None:
        """Write a batch; where one row spoils the statement, write them one by one.

        Raises:
            DBAPIError: If the ledger is away; nothing of the batch is known to be written.
        """
        if batch[0].collided and len(batch) > 1:
            self._write_each(connection, batch)
            return
        try:
            self._wait_for_locks(connection, batch[0])
            began = time.monotonic()
            answers = batch[0].kind.write(connection, [each.row for each in batch])
            meter().wrote(batch[0].kind.name, len(batch), time.monotonic() - began)
            _answer(batch, answers)
        except Exception as error:
            if is_away(error):
                raise
            if len(batch) > 1:
                self._write_each(connection, batch)
            elif is_collision(error) and batch[0].seconds_left() > COLLIDED_PAUSE:
                batch[0].collided, batch[0].not_before = True, time.monotonic() + COLLIDED_PAUSE
                self._put_back(batch)
            else:
                _fail(batch, error)

    def _write_each(self, connection: Connection, batch: Sequence[_Waiting]) -> None:
        """Write rows one by one, without waiting for those that somebody else has locked."""
        for each in batch:
            each.collided = True
            self._write(connection, [each])

    def _wait_for_locks(self, connection: Connection, first: _Waiting) -> None:
        usual = COLLIDED_LOCK_MILLISECONDS if first.collided else LOCK_MILLISECONDS
        milliseconds = first.kind.lock_milliseconds or usual
        if self._patience != milliseconds:
            connection.exec_driver_sql(f"SET lock_timeout = {milliseconds}")
            self._patience = milliseconds

    def _pause(self, error: Exception) -> None:
        """Wait before the next try; let go of the rows that cannot wait so long."""
        pause = AWAY_PAUSES[min(self._tries, len(AWAY_PAUSES) - 1)]
        self._tries += 1
        meter().ledger_missed()
        log.warning("ledger.unreachable", error=str(getattr(error, "orig", error)), pause_seconds=pause)
        with self._changed:
            over = [each for rows in self._waiting.values() for each in rows if each.seconds_left() <= pause]
            for name, rows in self._waiting.items():
                self._waiting[name] = [each for each in rows if each not in over]
        _fail(over, as_operational(error))
        time.sleep(pause)


async def _all_resolved(waiting: Sequence[_Waiting]) -> None:
    """Wait for every answer, good or bad, also where the caller is being cut off meanwhile.

    The rows are on their way; only with the answer is it known how far the attempt came. Whoever was cut off finds
    that in `worker.loop.cut_off`.
    """
    for each in waiting:
        if not each.future.done():
            with suppress(asyncio.CancelledError, Exception):  # what it holds, the caller looks at
                await each.future


def _answer(batch: Sequence[_Waiting], answers: Mapping[Any, Any]) -> None:
    """Hand every row its answer: one call into the loop for all of them."""
    _resolve(batch, lambda each: each.future.set_result(answers.get(each.key, each.kind.missing)))


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    _resolve(batch, lambda each: each.future.set_exception(error))


def _resolve(batch: Sequence[_Waiting], resolve: Callable[[_Waiting], None]) -> None:
    def on_loop() -> None:
        for each in batch:
            resolve(each)

    for each in batch:
        each.answered = True
    if batch:
        batch[0].loop.call_soon_threadsafe(on_loop)

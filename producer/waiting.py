"""Waiting: wakes whoever waits for a job within milliseconds of its end, whatever the number of waiters.

All waiters of a process share one connection to Redis, over which ended jobs are announced, and one look a second at
the ledger, which makes up for what was not. Order matters: once a job is listened for, it is looked at, so that it
cannot have ended unnoticed in between.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from uuid import UUID

from producer.ledger.states import State
from producer.listen import Listener
from producer.looks import Looks
from producer.standby import CLOSE_SECONDS, IDLE_SECONDS, Standby

LOOK_SECONDS = 1.0
# Whoever is to be called between would otherwise be called without end.
SHORTEST_SLICE_SECONDS = 0.01


class Waiting(Standby):
    """Everybody in one process who waits for a job. Safe to share between threads, and usable after a fork."""

    def __init__(
        self,
        redis_url: str,
        *,
        states_of: Callable[[Sequence[UUID]], Mapping[UUID, State]],
        over: Callable[[State | None], bool],
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """Connect nothing yet.

        Args:
            redis_url: Where jobs are announced; if that is no Redis, the ledger is looked at more often.
            states_of: Reads where jobs stand, in one statement, without those that are not there.
            over: Says of a state, None where there is no such job, whether whoever waits for it should be woken.
            look_seconds: How long a lost announcement may stay unnoticed.
        """
        self._states_of, self._over, self._look_seconds = states_of, over, look_seconds
        super().__init__("waiting")
        self._listener = Listener(redis_url, heard=self._heard, listening=self._listening, deaf=self._deaf)

    def wait(
        self,
        job_id: UUID,
        *,
        until: float,
        every: float = threading.TIMEOUT_MAX,
        meanwhile: Callable[[], object] | None = None,
    ) -> None:
        """Return when there may be news of the job, and at the latest at `until`.

        Read the job before: what was news then wakes nobody. And after: it may be none.

        Args:
            job_id: The job.
            until: On the monotonic clock; infinity waits for ever.
            every: How often to call `meanwhile`, in seconds.
            meanwhile: What to do between; what it raises ends the waiting.

        Raises:
            LedgerUnavailable: If Postgres is away.
        """
        if until <= time.monotonic():
            return
        with self.news_of(job_id) as news:
            while not news.done() and (left := until - time.monotonic()) > 0:
                with suppress(TimeoutError):
                    news.exception(min(left, max(every, SHORTEST_SLICE_SECONDS), threading.TIMEOUT_MAX))
                if meanwhile is not None and not news.done():
                    meanwhile()
        if news.done():
            news.result()

    @contextmanager
    def news_of(self, job_id: UUID) -> Iterator[Future[None]]:
        """Give what is done when there may be news of the job, for who waits in a way of his own, as on a loop.

        It fails with LedgerUnavailable where Postgres is away. Read the job before and after, as for `wait`.
        """
        news: Future[None] = Future()
        try:
            self._expect(job_id, news)
            yield news
        finally:
            self._leave(job_id, news)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Let go of Redis. Whoever waits goes on waiting, and the connection goes with the last of them."""
        if self._waiters:
            seconds = 0.0
        super().close(seconds)
        self._listener.close(seconds)

    def _renew(self) -> None:
        super()._renew()
        self._waiters: dict[UUID, list[Future[None]]] = {}
        self._looks = Looks(self._look_seconds)

    # ---- the waiters' side -------------------------------------------------------------------------------------

    def _expect(self, job_id: UUID, news: Future[None]) -> None:
        with self._changed:
            self._waiters.setdefault(job_id, []).append(news)
            self._looks.expect(job_id, time.monotonic())
            self._listener.listen([job_id])
            self._call()

    def _leave(self, job_id: UUID, news: Future[None]) -> None:
        with self._changed:
            waiters = self._waiters.get(job_id, [])
            if news in waiters:
                waiters.remove(news)
            if not waiters:
                self._forget(job_id)

    def _forget(self, job_id: UUID) -> list[Future[None]]:
        self._looks.drop(job_id)
        self._listener.leave([job_id])
        waiters = self._waiters.pop(job_id, [])
        if self._closing and not self._waiters:
            self._stir()
        return waiters

    # ---- the thread, which looks -------------------------------------------------------------------------------

    def _run(self) -> None:
        while job_ids := self._due():
            began = time.monotonic()
            try:
                states = self._states_of(job_ids)
                over = [job_id for job_id in job_ids if self._over(states.get(job_id))]
            except Exception as error:  # noqa: BLE001  whatever it is, it is raised where somebody waits
                self._wake(job_ids, error)
            else:
                self._looks.took = time.monotonic() - began
                self._wake(over)

    def _due(self) -> list[UUID]:
        """Wait until it is time to look, and return at which jobs; none where nobody has waited for a while."""
        with self._changed:
            while not (job_ids := self._looks.take(time.monotonic())):
                idle = not self._waiters
                stirred = self._changed.wait(min(self._looks.seconds_left(time.monotonic()), IDLE_SECONDS))
                if not self._waiters and (self._closing or (idle and not stirred)):
                    self._thread = None
                    return []
            return job_ids

    def _wake(self, job_ids: Iterable[UUID], error: Exception | None = None) -> None:
        with self._changed:
            for news in [news for job_id in job_ids for news in self._forget(job_id)]:
                news.set_exception(error) if error else news.set_result(None)

    # ---- what the listener tells -------------------------------------------------------------------------------

    def _heard(self, job_id: UUID) -> None:
        self._wake([job_id])

    def _listening(self, job_ids: set[UUID]) -> None:
        with self._changed:
            self._looks.hear(job_ids, time.monotonic())
            self._stir()

    def _deaf(self) -> None:
        with self._changed:
            self._looks.deafen(time.monotonic())
            self._stir()

"""Listening: hears over one connection to Redis which of the jobs that this process waits for were announced.

What is missed here, the next look at the ledger sees. So nothing is raised: where Redis is away, this says so and
tries again.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from typing import Any
from uuid import UUID

from producer.announce import CHANNEL_PREFIX
from producer.broker import bounded_redis, is_redis, load_redis, redis_pool
from producer.standby import IDLE_SECONDS, Standby

# A Redis that leaves a question unanswered for so long is given up, and another connection tried.
ANSWER_SECONDS = 1.0
# Nothing heard for so long: ask whether the connection is still one.
SILENT_SECONDS = 5.0
# How long to wait between tries to reach Redis, growing up to the last.
PAUSES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)


class Listener(Standby):
    """Listens from a thread of its own. Safe to share between threads, and usable after a fork."""

    def __init__(
        self,
        redis_url: str,
        *,
        heard: Callable[[UUID], None],
        listening: Callable[[set[UUID]], None],
        deaf: Callable[[], None],
    ) -> None:
        """Connect nothing yet. Where the broker at `redis_url` is no Redis, nothing is ever heard.

        Args:
            redis_url: Where jobs are announced.
            heard: Told, in the thread, of a job that was announced.
            listening: Told of jobs whose announcements will be heard from now on; nothing is known of before.
            deaf: Told that nothing is heard any more.
        """
        super().__init__("listener")
        self._url = redis_url
        self._heard, self._listening, self._deaf = heard, listening, deaf

    def listen(self, job_ids: Iterable[UUID]) -> None:
        """Listen for these jobs too."""
        if not is_redis(self._url):
            return
        with self._changed:
            new = set(job_ids) - self._wanted
            if new:
                self._wanted |= new
                self._moved |= new
                self._call()

    def leave(self, job_ids: Iterable[UUID]) -> None:
        """Listen for these jobs no more."""
        with self._changed:
            left = self._wanted.intersection(job_ids)
            if left:
                self._wanted -= left
                self._moved |= left
                self._stir()

    def _renew(self) -> None:
        super()._renew()
        self._wanted: set[UUID] = set()
        self._moved: set[UUID] = set()  # into `_wanted` or out of it, since Redis was last told
        self._stirrer: socket.socket | None = None
        self._failures = 0

    def _stir(self) -> None:
        super()._stir()
        if self._stirrer is not None:
            with suppress(OSError):  # full: it has been stirred more than enough
                self._stirrer.send(b"\0")

    def _prepare(self) -> None:
        load_redis()

    def _run(self) -> None:
        # The thread waits for Redis and for us at once, so we speak to it over a socket, too.
        ours, its = socket.socketpair()
        with ours, its:
            ours.setblocking(False)
            its.setblocking(False)
            with self._changed:
                self._stirrer = ours
            while not self._let_go():
                try:
                    with closing(_Line(self._url)) as line:
                        self._attend(line, its)
                except Exception as error:  # noqa: BLE001  a thread that died of anything would be missed by nobody
                    self._deaf()
                    self._pause(error)

    def _let_go(self) -> bool:
        with self._changed:
            if self._wanted:
                return False
            self._thread = self._stirrer = None
            return True

    def _pause(self, error: Exception) -> None:
        pause = PAUSES[min(self._failures, len(PAUSES) - 1)]
        if self._wanted:  # else nobody misses anything
            if self._failures == 0:
                _log_unheard(error)
            self._failures += 1
        with self._changed:
            self._changed.wait_for(lambda: self._closing and not self._wanted, pause)

    def _attend(self, line: _Line, stirred: socket.socket) -> None:
        """Keep Redis told of whom we listen for, and hear it, until nobody has waited for a while."""
        with self._changed:
            self._moved |= self._wanted
        while True:
            self._tell(line)
            if not line.wait(stirred, SILENT_SECONDS if self._wanted else IDLE_SECONDS):
                if not self._wanted:
                    return
                line.ask()
            if self._closing and not self._wanted:
                return
            confirmed = set()
            for kind, job_id in line.answers():
                if kind == b"message":
                    self._heard(job_id)
                elif kind == b"subscribe":
                    confirmed.add(job_id)
            if confirmed:
                self._failures = 0
                self._listening(confirmed)

    def _tell(self, line: _Line) -> None:
        with self._changed:
            moved, self._moved = self._moved, set()
            wanted = moved & self._wanted
        kept = {job_id for job_id in wanted if line.listens(job_id)}  # left, and wanted again before Redis was told
        line.leave(moved - wanted)
        line.listen(wanted - kept)
        if kept:
            self._listening(kept)


class _Line:
    """A connection to Redis that listens, and knows for which jobs. For one thread."""

    def __init__(self, url: str) -> None:
        # The second protocol: there every answer is a list, or PONG. A connection and not redis-py's PubSub, which
        # connects and subscribes again by itself, and would keep from us what was lost meanwhile.
        # The pool is kept with its connection, which asks it where Redis is.
        self._pool: Any = redis_pool(url, protocol=2, **bounded_redis())
        self._connection: Any = self._pool.make_connection()
        self._connection.connect()  # type: ignore[no-untyped-call]
        self._jobs: dict[bytes, UUID] = {}
        self._asked = 0  # questions without an answer yet
        self._spoke_at = time.monotonic()  # when Redis last answered, or was asked after all had been answered

    def listens(self, job_id: UUID) -> bool:
        """Whether Redis was told to tell us of the job."""
        return _channel(job_id) in self._jobs

    def listen(self, job_ids: set[UUID]) -> None:
        channels = {_channel(job_id): job_id for job_id in job_ids}
        if channels:
            self._jobs |= channels
            self._send("SUBSCRIBE", *channels)

    def leave(self, job_ids: set[UUID]) -> None:
        channels = [channel for channel in map(_channel, job_ids) if self._jobs.pop(channel, None)]
        if channels:
            self._send("UNSUBSCRIBE", *channels)

    def ask(self) -> None:
        """Ask for a sign of life."""
        self._send("PING")

    def wait(self, stirred: socket.socket, seconds: float) -> bool:
        """Wait for an answer or a stir, and say whether one came.

        Raises:
            TimeoutError: If Redis has been asked and says nothing.
        """
        poller = select.poll()  # select() knows only the first 1,024 files of a process
        poller.register(stirred, select.POLLIN)
        poller.register(self._connection._sock, select.POLLIN)  # noqa: SLF001  kombu does so, too; there is no other way
        came = poller.poll(1000 * (ANSWER_SECONDS if self._asked else seconds))
        with suppress(BlockingIOError):
            stirred.recv(4096)
        if self._asked and time.monotonic() - self._spoke_at > ANSWER_SECONDS:
            raise TimeoutError(f"no answer within {ANSWER_SECONDS:g} s")
        return bool(came)

    def answers(self) -> Iterator[tuple[bytes, UUID]]:
        """Yield what has come: ``message`` or ``subscribe``, and the job."""
        while self._connection.can_read(0):
            answer = self._connection.read_response()
            self._spoke_at = time.monotonic()
            kind, channel = answer[:2] if isinstance(answer, list) else (b"pong", None)
            self._asked -= kind != b"message"
            if kind in (b"message", b"subscribe") and channel in self._jobs:
                yield kind, self._jobs[channel]

    def close(self) -> None:
        self._connection.disconnect()

    def _send(self, *command: str | bytes) -> None:
        if not self._asked:
            self._spoke_at = time.monotonic()
        self._asked += max(1, len(command) - 1)
        self._connection.send_command(*command)


def _channel(job_id: UUID) -> bytes:
    return f"{CHANNEL_PREFIX}{job_id}".encode()


def _log_unheard(error: Exception) -> None:
    import structlog  # noqa: PLC0415  only a failure logs on this side

    structlog.get_logger("producer").warning("results.unheard", error=str(error))

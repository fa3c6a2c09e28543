"""Ringing: telling Celery's workers that jobs are due. The only file on this side that knows Celery.

A ring is a doorbell. It names jobs and carries nothing else; losing it loses nothing, since the ledger says what is due
and the relay in every worker rings what nobody rang. Since an accept is durable already, nobody waits for its ring: one
thread sends them, and under load one message rings for whatever was accepted meanwhile.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

if TYPE_CHECKING:
    from celery import Celery

# After a failed ring, later ones are left to the relay for a while: a dead Redis is not asked for each of them.
SILENT_SECONDS = 1.0
# The first ring after a pause leaves at once; the next ones gather for so long, and leave as one message.
GATHER_SECONDS = 0.02
# How many jobs a message rings for, where it is more than one: a worker counts what it takes up in jobs.
JOBS_HEADER = "surefoot_jobs"


@dataclass(frozen=True, slots=True)
class Ring:
    """What a ring needs to know of a job.

    Attributes:
        job_id: Becomes Celery's task id where the ring is for this job alone, so that Flower, logs and the ledger
            speak of the same thing.
        action: Becomes Celery's task name.
        queue: Where workers of that action listen.
        priority: 0 (soonest) to 9 (last).
        traceparent: Goes along as a header.
        request_id: Goes along as a header.
        together: How many jobs of its action one message may ring for.
    """

    job_id: UUID
    action: str
    queue: str
    priority: int
    traceparent: str
    request_id: str
    together: int = 1


class Bell:
    """Publishes rings, never fails and never makes a caller wait for a broker.

    Safe to use from several threads, and after a fork: what a parent has not sent yet stays the parent's.
    """

    def __init__(self, url: str, *, timeout_seconds: float, app: Celery | None = None) -> None:
        """Connect nothing yet. A worker passes its own Celery `app`; a producer has one made."""
        self._url, self._timeout = url, timeout_seconds
        self._app = app
        self._silent_until = 0.0
        self._pending: list[Ring] = []
        self._running = self._publishing = False
        self._making, self._changed, self._hurried = threading.Lock(), threading.Condition(), threading.Event()
        _bells.add(self)

    @property
    def app(self) -> Celery:
        """The Celery app that publishes; made at the first use, since importing Celery takes a while."""
        if self._app is None:
            with self._making:
                self._app = self._app or _make_app(self._url, self._timeout)
        return self._app

    def ring(self, rings: Iterable[Ring]) -> None:
        """Have rings published, soon; return at once.

        One that cannot be published is the relay's. A failure is logged, not raised: the jobs are accepted all the
        same.
        """
        _ = self.app  # in the caller's thread: a process that ends right after this can load nothing any more
        with self._changed:
            self._pending.extend(rings)
            if self._pending and not self._running:
                self._running = True
                threading.Thread(target=self._run, name="bell", daemon=True).start()
            self._changed.notify_all()

    def ring_now(self, rings: Iterable[Ring]) -> list[Ring]:
        """Publish rings in this thread; return those that could not be, after a line in the log."""
        messages = list(_messages(rings))
        while messages and time.monotonic() >= self._silent_until:
            try:
                self._publish(messages[0])
            except Exception as error:  # noqa: BLE001  whatever a broker does, an accepted job stays accepted
                self._silent_until = time.monotonic() + SILENT_SECONDS
                _log_unrung(error)
            else:
                messages.pop(0)
        return [ring for message in messages for ring in message]

    def flush(self, seconds: float | None = None) -> bool:
        """Wait until every ring so far has been published or given up; return whether that is so.

        Args:
            seconds: The longest wait; None is somewhat longer than publishing can take.
        """
        limit = self._timeout * 2 if seconds is None else seconds
        self._hurried.set()
        with self._changed:
            done = self._changed.wait_for(lambda: not (self._pending or self._publishing), limit)
        self._hurried.clear()
        return done

    def depth(self, queue: str) -> int:
        """Return how many rings wait in `queue`.

        Raises:
            Exception: Whatever the broker's client raises when the broker is away.
        """
        with self.app.connection_for_write() as connection:
            channel: Any = connection.default_channel
            try:
                return int(channel.queue_declare(queue, passive=True).message_count)
            except connection.channel_errors:
                return 0  # no such queue: nothing waits in it

    def close(self) -> None:
        """Publish what waits, and let go of the broker.

        Celery shares connections between a process's apps, so they stay open for others.
        """
        self.flush()
        self._app = None

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending)
                taken, self._pending, self._publishing = self._pending, [], True
            began = time.monotonic()
            try:
                self.ring_now(taken)
            finally:
                with self._changed:
                    self._publishing = False
                    self._changed.notify_all()
            self._hurried.wait(max(0.0, began + GATHER_SECONDS - time.monotonic()))

    def _begin_anew(self) -> None:
        # In a forked child: its parent's locks may have been held in the moment of the fork, and its rings are its own.
        self._making, self._changed, self._hurried = threading.Lock(), threading.Condition(), threading.Event()
        self._pending = []
        self._running = self._publishing = False

    def _publish(self, rings: Sequence[Ring]) -> None:
        first, alone = rings[0], len(rings) == 1
        self.app.send_task(
            first.action,
            args=[str(ring.job_id) for ring in rings],
            task_id=str(first.job_id if alone else uuid4()),
            queue=first.queue,
            priority=self._broker_priority(first.priority),
            headers={"traceparent": first.traceparent, "request_id": first.request_id}
            if alone
            else {JOBS_HEADER: len(rings)},
            # What Flower shows; Celery's own would be made of every id.
            argsrepr=str(first.job_id) if alone else f"{len(rings)} jobs, the first {first.job_id}",
            kwargsrepr="",
            retry=False,
            ignore_result=True,
        )

    def _broker_priority(self, priority: int) -> int:
        # Redis: 0 is first. AMQP: 9 is first.
        return 9 - priority if self._url.startswith("amqp") else priority


def _messages(rings: Iterable[Ring]) -> Iterator[Sequence[Ring]]:
    """Group rings that one message may name: of one action, for one queue, of one priority."""
    groups: dict[tuple[str, str, int], list[Ring]] = {}
    for ring in rings:
        groups.setdefault((ring.action, ring.queue, ring.priority), []).append(ring)
    for group in groups.values():
        together = min(ring.together for ring in group)
        for first in range(0, len(group), together):
            yield group[first : first + together]


_bells: weakref.WeakSet[Bell] = weakref.WeakSet()


def _begin_anew() -> None:
    for bell in list(_bells):
        bell._begin_anew()  # noqa: SLF001  its own module's


def _flush() -> None:
    for bell in list(_bells):
        bell.flush()


os.register_at_fork(after_in_child=_begin_anew)
atexit.register(_flush)


def _make_app(url: str, timeout: float) -> Celery:
    import concurrent.futures.thread  # noqa: PLC0415, F401  the one module that Python will not load while it ends

    from celery import Celery  # noqa: PLC0415  see Bell.app

    # Neither the process's default app nor its configuration: a producer is a guest in somebody else's process.
    app = Celery("surefoot-producer", set_as_current=False, autofinalize=True)
    app.conf.update(
        broker_url=url,
        broker_connection_timeout=timeout,
        broker_transport_options=bounded_transport(timeout),
        broker_pool_acquire_timeout=timeout,
        task_send_sent_event=True,  # Flower shows what was asked for, not only what was taken up
    )
    return app


def bounded_transport(timeout: float) -> dict[str, Any]:
    """Return kombu's options for Redis under which no publish can hang: its own default waits for ever."""
    return {
        "socket_connect_timeout": timeout,
        "socket_timeout": timeout,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "max_retries": 0,
    }


def _log_unrung(error: Exception) -> None:
    import structlog  # noqa: PLC0415  only a failure logs on this side

    structlog.get_logger("producer").warning("ring.failed", error=str(error), error_type=type(error).__name__)

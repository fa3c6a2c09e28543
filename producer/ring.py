"""Ringing: telling Celery's workers that jobs are due. The only file on this side that knows Celery.

A ring is a doorbell. It names jobs and carries nothing else; losing it loses nothing, since the ledger says what is due
and the relay in every worker rings what nobody rang. Since an accept is durable already, nobody waits for its ring: one
thread sends them, and under load one message rings for whatever was accepted meanwhile.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from producer.broker import celery_url, is_rabbitmq, queue_type, transport_options
from producer.standby import CLOSE_SECONDS, IDLE_SECONDS, Standby

if TYPE_CHECKING:
    from celery import Celery

# After a failed ring, later ones are left to the relay for a while: a dead Redis is not asked for each of them.
SILENT_SECONDS = 1.0
# The first ring after a pause leaves at once; the next ones gather for so long, and leave as one message.
GATHER_SECONDS = 0.02
# Brokers keep priorities apart in steps: over Redis Celery's of three, over RabbitMQ two of five.
STEP = 3
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


def ahead(priority: int) -> int:
    """Return the priority of a ring for who has been through the queue of this one already, and goes before it.

    It has a place or a turn now, which is of use to nobody else meanwhile, however long the queue is; or a dead worker
    had begun it; or its ring was for many, and each is rung for alone now. All of that queue was accepted later. It
    joins what is sooner by a step, behind whoever is there. Where the broker has no such step it stays in its own: 0 to
    2 over Redis, 0 to 4 and 8 to 9 over RabbitMQ.
    """
    return max(0, priority - STEP)


class Bell(Standby):
    """Publishes rings, never fails and never makes a caller wait for a broker.

    Safe to use from several threads, and after a fork: what a parent has not sent yet stays the parent's.
    """

    def __init__(self, url: str, *, timeout_seconds: float, app: Celery | None = None) -> None:
        """Connect nothing yet. A worker passes its own Celery `app`; a producer has one made."""
        self._url, self._timeout = url, timeout_seconds
        self._app, self._is_guest = app, app is not None
        self._silent_until = 0.0
        super().__init__("bell")
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
        with self._changed:
            before = len(self._pending)
            self._pending.extend(rings)
            self._asked += len(self._pending) - before
            if not self._pending:
                return
            try:
                self._call()
            except RuntimeError as error:  # no new thread can be had, as while the interpreter ends
                self._pending.clear()
                self._ended = self._asked
                _log_unrung(error)

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
            seconds: The longest wait; None waits as long as rings go out, for each somewhat longer than it can take.
        """
        self._hurried.set()
        with self._changed:
            asked = self._asked
            if seconds is not None:
                self._changed.wait_for(lambda: self._ended >= asked, seconds)
            else:
                self._wait_while_rings_go_out(asked)
            done = self._ended >= asked
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

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Publish what waits, and let go of the thread, for whose end `seconds` are waited, and of the broker.

        Celery shares connections between a process's apps, so they stay open for others. Ringing begins anew.
        """
        self.flush()
        self._hurried.set()
        super().close(seconds)
        self._hurried.clear()
        self._app = None

    def _renew(self) -> None:
        super()._renew()
        self._making, self._hurried = threading.Lock(), threading.Event()
        self._pending: list[Ring] = []
        self._asked = self._ended = self._published = 0

    def _disinherit(self) -> None:
        # Celery's locks may have been held by the bell's thread in the moment of the fork, as ours.
        if not self._is_guest:
            self._app = None
        elif self._app is not None:
            vars(self._app).pop("amqp", None)  # made anew at the next use, with the dispatcher of events
            self._app.clock.mutex = threading.Lock()  # type: ignore[attr-defined]  # missing in its stubs

    def _prepare(self) -> None:
        _ = self.app  # in the caller's thread: a process that ends right after this can load nothing any more

    def _run(self) -> None:
        while taken := self._taken():
            began = time.monotonic()
            try:
                for message in _messages(taken):
                    self.ring_now(message)
                    self._note(published=1)
            finally:
                self._note(ended=len(taken))
            self._hurried.wait(max(0.0, began + GATHER_SECONDS - time.monotonic()))

    def _taken(self) -> list[Ring]:
        """Wait for rings and take them; none where there has been nothing to do for a while."""
        with self._changed:
            while not self._pending:
                # Looked at again: one that is added while the wait ends finds a thread, and so begins none.
                if self._closing or not (self._changed.wait(IDLE_SECONDS) or self._pending):
                    self._thread = None
                    return []
            taken, self._pending = self._pending, []
            return taken

    def _note(self, *, published: int = 0, ended: int = 0) -> None:
        with self._changed:
            self._published += published
            self._ended += ended
            self._changed.notify_all()

    def _wait_while_rings_go_out(self, asked: int) -> None:
        moved = True
        while moved and self._ended < asked:
            moved = self._changed.wait_for(partial(self._has_moved, self._published, asked), self._timeout * 2)

    def _has_moved(self, published: int, asked: int) -> bool:
        return self._ended >= asked or self._published > published

    def _publish(self, rings: Sequence[Ring]) -> None:
        first, alone = rings[0], len(rings) == 1
        self.app.send_task(
            first.action,
            args=[str(ring.job_id) for ring in rings],
            task_id=str(first.job_id if alone else uuid4()),
            queue=first.queue,
            priority=self.priority_of(first.priority),  # either way it is the same
            headers={"traceparent": first.traceparent, "request_id": first.request_id}
            if alone
            else {JOBS_HEADER: len(rings)},
            # What Flower shows, in place of arguments; Celery's own would be made of every id.
            argsrepr=f"request {first.request_id}" if alone else f"{len(rings)} jobs, the first {first.job_id}",
            kwargsrepr="",
            retry=False,
            ignore_result=True,
        )

    def priority_of(self, at_broker: int) -> int:
        """Return the priority of which a broker's message has this one. Redis: 0 is first. AMQP: 9 is first."""
        return 9 - at_broker if is_rabbitmq(self._url) else at_broker


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


def _disinherit() -> None:
    """Have a forked child publish with nothing of its parent's, as kombu itself does after multiprocessing's forks."""
    for bell in list(_bells):
        bell._disinherit()  # noqa: SLF001  its own module's
    if "kombu.pools" in sys.modules:
        from kombu.pools import connections, producers  # noqa: PLC0415  see Bell.app

        producers.clear()
        connections.clear()


def _flush() -> None:
    for bell in list(_bells):
        bell.flush()


os.register_at_fork(after_in_child=_disinherit)
atexit.register(_flush)


def _make_app(url: str, timeout: float) -> Celery:
    import concurrent.futures.thread  # noqa: PLC0415, F401  the one module that Python will not load while it ends

    from celery import Celery  # noqa: PLC0415  see Bell.app

    # Neither the process's default app nor its configuration: a producer is a guest in somebody else's process.
    app = Celery("surefoot-producer", set_as_current=False, autofinalize=True)
    app.conf.update(
        broker_url=celery_url(url),
        broker_connection_timeout=timeout,
        broker_transport_options=transport_options(url, timeout),
        # As a worker declares them, or RabbitMQ refuses whoever comes second.
        task_default_queue_type=queue_type(url),
        task_create_missing_queue_type=queue_type(url),
        broker_pool_acquire_timeout=timeout,
        task_send_sent_event=True,  # Flower shows what was asked for, not only what was taken up
    )
    _load(app, url)
    return app


def _load(app: Celery, url: str) -> None:
    """Import what a first ring would: a fork while the bell's thread imports leaves the child waiting for ever."""
    import encodings.idna  # noqa: PLC0415, F401  for a host's name

    import celery.app.task  # noqa: PLC0415
    import celery.events.dispatcher  # noqa: PLC0415, F401
    from kombu.transport import get_transport_cls  # noqa: PLC0415

    _ = app.amqp, app.events, app.backend, app.AsyncResult
    get_transport_cls(url.partition("://")[0])  # no more of the URL: an error in the rest is said when it is used


def _log_unrung(error: Exception) -> None:
    import structlog  # noqa: PLC0415  only a failure logs on this side

    structlog.get_logger("producer").warning("ring.failed", error=str(error), error_type=type(error).__name__)

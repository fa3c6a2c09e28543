"""Ringing: telling Celery's workers that jobs are due. The only file on this side that knows Celery.

A ring is a doorbell. It names a job and carries nothing else; losing it loses nothing, since the ledger says what
is due and the relay in every worker rings what nobody rang.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from celery import Celery

# After a failed ring, later ones are left to the relay for a while: an accept should not wait for a dead Redis twice.
SILENT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Ring:
    """What a ring needs to know of a job.

    Attributes:
        job_id: Becomes Celery's task id, so that Flower, logs and the ledger speak of the same thing.
        action: Becomes Celery's task name.
        queue: Where workers of that action listen.
        priority: 0 (soonest) to 9 (last).
        traceparent: Goes along as a header.
        request_id: Goes along as a header.
    """

    job_id: UUID
    action: str
    queue: str
    priority: int
    traceparent: str
    request_id: str


class Bell:
    """Publishes rings, never fails and never waits long for a broker that is away.

    Safe to use from several threads, and after a fork: Celery's pools notice both.
    """

    def __init__(self, url: str, *, timeout_seconds: float, app: Celery | None = None) -> None:
        """Connect nothing yet. A worker passes its own Celery `app`; a producer has one made."""
        self._url, self._timeout = url, timeout_seconds
        self._app = app
        self._lock = threading.Lock()
        self._silent_until = 0.0

    @property
    def app(self) -> Celery:
        """The Celery app that publishes; made at the first use, since importing Celery takes a while."""
        if self._app is None:
            with self._lock:
                self._app = self._app or _make_app(self._url, self._timeout)
        return self._app

    def ring(self, rings: Iterable[Ring]) -> int:
        """Publish each ring; return how many were published before the first that could not be.

        The rest is the relay's. A failure is logged, not raised: the jobs are accepted all the same.
        """
        if time.monotonic() < self._silent_until:
            return 0
        rung = 0
        try:
            for ring in rings:
                self._publish(ring)
                rung += 1
        except Exception as error:  # noqa: BLE001  whatever a broker does, an accepted job stays accepted
            self._silent_until = time.monotonic() + SILENT_SECONDS
            _log_unrung(error)
        return rung

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
        """Let go of the broker. Celery shares connections between a process's apps, so they stay open for others."""
        self._app = None

    def _publish(self, ring: Ring) -> None:
        self.app.send_task(
            ring.action,
            args=[str(ring.job_id)],
            task_id=str(ring.job_id),
            queue=ring.queue,
            priority=self._broker_priority(ring.priority),
            headers={"traceparent": ring.traceparent, "request_id": ring.request_id},
            retry=False,
            ignore_result=True,
        )

    def _broker_priority(self, priority: int) -> int:
        # Redis: 0 is first. AMQP: 9 is first.
        return 9 - priority if self._url.startswith("amqp") else priority


def _make_app(url: str, timeout: float) -> Celery:
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

"""The canary: a worker sends word to itself by way of the broker; one that hears nothing any more has gone deaf.

A worker whose connection was reset can go on without ever being given a ring again, while its process lives, its
connections stand and `inspect ping` answers. So what counts is progress: a message on a queue of this worker's own,
taken off the broker in the same breath as its rings.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from celery import Celery, bootsteps
from celery.bootsteps import RUN  # type: ignore[attr-defined]  # its stubs leave it out
from kombu import Consumer, Queue

from worker.log import log
from worker.stopping import is_stopping

CONTENT = "json"
# What a worker that was killed leaves in its queue is gone after so long.
LEFT_SECONDS = 600
# Celery waits for up to 32 seconds before it tries a lost broker once more.
RECONNECT_SECONDS = 64.0
# How long a deaf worker has, after what its actions may take, until it is ended the hard way.
LAST_SECONDS = 30.0


class Canary:
    """One thread of a worker's main process.

    Only silence in which the worker could have heard counts: not while the broker is away, nor while the worker has
    taken up all that it may, nor the time in which the whole process stood still.
    """

    def __init__(self, app: Celery, *, worker: str, every_seconds: float, deaf_seconds: float, grace: float) -> None:
        """Start nothing yet.

        Args:
            app: Whose broker it is.
            worker: Unique among the living.
            every_seconds: Between two messages.
            deaf_seconds: The silence after which the worker ends.
            grace: Seconds that an action may take: none of those that run is cut off by a worker that ends for this.
        """
        self.queue = Queue(f"canary.{worker}", routing_key=f"canary.{worker}", auto_delete=True)
        self._app, self._every, self._grace = app, every_seconds, grace
        self._most = max(1, round(deaf_seconds / every_seconds))
        self._most_unconnected = self._most + round(RECONNECT_SECONDS / every_seconds)
        self._channel: Any = None
        self._is_closing: Callable[[], bool] = lambda: False
        self._number = self._sent = self._heard = 0
        self._deaf = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="canary", daemon=True)

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more; safe to call twice, and before `start`."""
        self._stopping.set()

    def listen(self, channel: Any, *, is_closing: Callable[[], bool]) -> Any:
        """Hear, from now on, over the channel that brings the rings; return the consumer.

        Args:
            channel: A new one for each connection.
            is_closing: Whether its worker takes no more by now, whoever asked for that.
        """
        consumer = Consumer(channel, [self.queue], callbacks=[self._hear], no_ack=True, accept=[CONTENT])
        consumer.consume()
        self._channel, self._is_closing = channel, is_closing
        return consumer

    def lose(self) -> None:
        """Say that the connection is gone, and Celery looks for another."""
        self._channel = None

    @property
    def has_begun(self) -> bool:
        """Whether the worker's start has come to its end; sending is the last of it."""
        return self._thread.ident is not None

    @property
    def is_deaf(self) -> bool:
        """Whether this worker ends because it heard nothing any more, or nobody would notice if it did."""
        return self._deaf or (self.has_begun and not self._stopping.is_set() and not self._thread.is_alive())

    def _hear(self, body: Any, _message: Any) -> None:
        if isinstance(body, int):  # anybody may write into the queue
            self._heard = max(self._heard, min(body, self._number))

    def _run(self) -> None:
        missed, heard, channel, looked_at = 0, 0, None, time.monotonic()
        while not self._stopping.wait(self._every):
            stood_still = time.monotonic() - looked_at > 2 * self._every
            looked_at = time.monotonic()
            progressed = self._heard >= self._sent or self._heard > heard
            reconnected = self._channel is not channel and self._channel is not None
            heard, channel = self._heard, self._channel
            could_hear = not stood_still and not self._is_full() and self._send()
            missed = missed + 1 if could_hear and not progressed and not reconnected else 0
            if missed >= (self._most if channel is not None else self._most_unconnected):
                self._end(missed * self._every)
                return

    def _is_full(self) -> bool:
        # RabbitMQ's channels do not count: the broker does, and what needs no acknowledgement comes in any case.
        qos = getattr(self._channel, "qos", None)
        return qos is not None and not qos.can_consume()

    def _send(self) -> bool:
        """Send the next message; return whether the broker took it."""
        # Before it leaves: a consumer that waits for it has it before the broker's answer is here.
        self._number = number = self._number + 1
        try:
            with self._app.connection_for_write() as connection:
                channel: Any = connection.default_channel
                connection.Producer(channel).publish(
                    number, routing_key=self.queue.name, serializer=CONTENT, retry=False
                )
                if connection.transport.driver_type == "redis":
                    channel.client.expire(self.queue.name, LEFT_SECONDS)
        except Exception as error:  # noqa: BLE001  a broker that is away; who else needs it says so louder
            log.debug("canary.unsent", error=str(error))
            return False
        self._sent = number
        return True

    def _end(self, seconds: float) -> None:
        """End this worker in good order, so that its supervisor starts it anew; or, where that gets stuck, at once."""
        if is_stopping() or self._is_closing():  # the latter is all that `control shutdown` brings about
            return
        self._deaf = True
        log.error("worker.deaf", for_seconds=round(seconds, 1), queue=self.queue.name)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self._grace + LAST_SECONDS)
        log.error("worker.stuck", for_seconds=round(self._grace + LAST_SECONDS, 1))
        os._exit(1)


class Listening(bootsteps.StartStopStep):
    """Celery's step by which a worker listens to its canary, anew with each connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        """Listen to nothing yet."""
        super().__init__(parent, **options)
        self._consumer: Any = None

    def start(self, parent: Any) -> None:
        """Listen over the channel of this connection."""
        from worker.app import parts  # noqa: PLC0415  the app registers this step

        channel, blueprint = parent.task_consumer.channel, parent.blueprint
        self._consumer = parts().canary.listen(channel, is_closing=lambda: blueprint.state != RUN)

    def stop(self, parent: Any) -> None:  # noqa: ARG002  Celery's signature
        """Listen no more; the connection may be gone."""
        from worker.app import parts  # noqa: PLC0415  as above

        parts().canary.lose()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            try:
                consumer.cancel()
            except Exception as error:  # noqa: BLE001  of a connection that is gone
                log.debug("canary.unheard", error=str(error))

    shutdown = stop

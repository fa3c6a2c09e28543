"""Kombu's Redis channel for a worker whose rings are doorbells: two repairs, and less to do for each ring.

Each repair has a test that fails without it, so that it goes when kombu 5.7's successor no longer needs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from redis.exceptions import ConnectionError  # noqa: A004  what kombu takes for a lost connection

from producer.ring import JOBS_HEADER
from tasks import RING_SIZE
from worker.log import log
from worker.stopping import is_stopping

_Base: Any = kombu_redis.Channel  # its stubs leave out what is repaired here
_BaseQoS: Any = virtual.QoS


class QoS(_BaseQoS):  # type: ignore[misc]  # as below
    """What was delivered and not yet acknowledged, kept here alone and counted in jobs.

    kombu copies each message into Redis until it is acknowledged, and hands it out again when its worker was silent
    for an hour, or has just lost its connection. Our rings need neither: leases say truly who died, and the relay rings
    again what nobody claimed. It is half of what a message costs this side, and most of what it costs Redis.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._jobs: dict[str, int] = {}
        self._taken_up = 0
        self.delivered, self.last = 0, ""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Take note of a message that was delivered."""
        super().append(message, delivery_tag)
        self.delivered, self.last = self.delivered + 1, delivery_tag
        before = self._jobs.get(delivery_tag, 0)  # tags are unique, unless somebody makes them up
        self._jobs[delivery_tag] = jobs = _jobs_of(message)
        self._taken_up += jobs - before

    def ack(self, delivery_tag: str) -> None:
        """Forget a message that was acknowledged."""
        self._taken_up -= self._jobs.pop(delivery_tag, 0)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002  kombu's signature
        """Forget a message that was put back or dropped."""
        self._taken_up -= self._jobs.pop(delivery_tag, 0)
        super().reject(delivery_tag, requeue=requeue)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Put back once; what came in after that, over a connection that was already lost, is the relay's."""
        if getattr(self._delivered, "restored", False):
            self._delivered.clear()
        super().restore_unacked_once(stderr)

    def restore_unacked(self) -> list[Any]:
        """Put back what a stopping worker has not ended; what cannot be put back is the relay's.

        Where only the connection is lost, the attempts go on, and rings for them would be repeats.
        """
        self._jobs.clear()
        self._taken_up = 0
        if not is_stopping():
            self._delivered.clear()
            return []
        for error, _ in super().restore_unacked():
            log.warning("ring.not_returned", error=str(error))
        return []  # kombu would write them into a file that nobody reads

    def can_consume(self) -> bool:
        """Whether another message may be taken up."""
        return not self.prefetch_count or self._taken_up < self.prefetch_count


class Channel(_Base):  # type: ignore[misc]  # so it is Any here
    """A channel that survives what is no message, and a Redis that goes away while a ring is unacknowledged."""

    ack_emulation = False  # kombu's word for the copies

    _kept: tuple[Any, Any] | None = None
    _known_parameters: dict[str, Any] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.QoS = QoS

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Give a client for one operation: kombu makes one each time, which is a tenth of what a ring costs here."""
        if client is None and (self._kept is None or self._kept[0] is not self.pool):
            self._kept = (self.pool, self._create_client())
        yield client or (self._kept and self._kept[1])

    def _brpop_read(self, **options: Any) -> Any:
        """Take one message off the queue; one that nobody can read is put aside with a line in the log.

        kombu lets the decoder's error through, Celery takes it for its own defect and stops the worker. A message that
        was counted as taken up before it proved unreadable would be counted for ever.
        """
        delivered = self.qos.delivered
        try:
            return super()._brpop_read(**options)
        except (Empty, *self.connection_errors) as error:
            if not isinstance(error, KeyError):  # to kombu a broken connection, here a message that lacks something
                raise
            return self._put_aside(error, delivered)
        except Exception as error:  # noqa: BLE001  whatever a stranger's bytes provoke; they are off the queue by now
            return self._put_aside(error, delivered)

    def _put_aside(self, error: Exception, delivered: int) -> bool:
        log.error("ring.unreadable", error=str(error), error_type=type(error).__name__)
        if self.qos.delivered > delivered:
            self.qos.ack(self.qos.last)
        return True

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002  kombu's signature
        """Return where Redis is, also after the connection that knew it was taken apart.

        Redis refusing connections while a ring is unacknowledged and a BRPOP is in flight leaves a channel half
        closed; its second close asks for the parameters of a connection that is None, and the AttributeError ends
        the worker. Delivery tags are global, so acknowledging over a new connection is right.
        """
        if getattr(self.connection, "client", None) is None and self._known_parameters is not None:
            return dict(self._known_parameters)
        parameters: dict[str, Any] = super()._connparams(asynchronous)
        if not asynchronous:
            self._known_parameters = dict(parameters)
        elif self._known_parameters is None:
            self._known_parameters = dict(super()._connparams(False))
        return parameters


class SentinelChannel(Channel, kombu_redis.SentinelChannel):  # type: ignore[misc]  # as above
    """The same for a Redis behind Sentinels."""

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002  kombu's signature
        """Return connections to whichever Redis takes writes, also for a channel that is closed for the second time."""
        if self.connection.client is None:
            raise ConnectionError("closed")
        return super()._sentinel_managed_pool(asynchronous)


def _jobs_of(message: Any) -> int:
    jobs = message.headers.get(JOBS_HEADER, 1)
    return jobs if type(jobs) is int and 0 < jobs <= RING_SIZE else 1  # anybody may write into the queue


def install() -> None:
    """Have every Redis transport of this process use the repaired channel."""
    kombu_redis.Transport.Channel = Channel
    kombu_redis.SentinelTransport.Channel = SentinelChannel

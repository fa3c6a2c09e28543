"""Two repairs to kombu's Redis channel, without which the worker ends where it should go on.

Each has a test that fails without it, so that the repair goes when kombu 5.7's successor no longer needs it.
"""

from __future__ import annotations

from queue import Empty
from typing import Any

from kombu.transport import redis as kombu_redis

from worker.log import log

_Base: Any = kombu_redis.Channel  # its stubs leave out what is repaired here


class Channel(_Base):  # type: ignore[misc]  # so it is Any here
    """A channel that survives what is no message, and a Redis that goes away while a ring is unacknowledged."""

    _known_parameters: dict[str, Any] | None = None

    def _brpop_read(self, **options: Any) -> Any:
        """Take one message off the queue; one that nobody can read is put aside with a line in the log.

        kombu lets the decoder's error through, Celery takes it for its own defect and stops the worker.
        """
        try:
            return super()._brpop_read(**options)
        except (Empty, *self.connection_errors):
            raise
        except Exception as error:  # noqa: BLE001  whatever a stranger's bytes provoke; they are off the queue by now
            log.error("ring.unreadable", error=str(error), error_type=type(error).__name__)
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


def install() -> None:
    """Have every Redis transport of this process use the repaired channel."""
    kombu_redis.Transport.Channel = Channel

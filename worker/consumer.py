"""Celery's consumer, without what it would do on RabbitMQ for messages that are due later. There are none.

And with what children of prefork have to know when all that runs is cut off.
"""

from __future__ import annotations

from typing import Any

from celery.worker import consumer

from worker.request import Request
from worker.stopping import tell_children

_Base: Any = consumer.Consumer  # its stubs leave out its blueprint
UNWANTED = "celery.worker.consumer.delayed_delivery:DelayedDelivery"


class Consumer(_Base):  # type: ignore[misc]  # so it is Any here
    """The same, with one step fewer, and with a word to children before they are cut off."""

    class Blueprint(_Base.Blueprint):  # type: ignore[misc]  # as above
        """Its steps."""

        default_steps = tuple(step for step in _Base.Blueprint.default_steps if step != UNWANTED)

    def cancel_active_requests(self) -> None:
        """Cut off what runs, as a worker does that ends at once, and what was begun and it has not heard of yet."""
        tell_children()
        Request.ends_with = self.pool
        super().cancel_active_requests()

"""Celery's consumer, without what it would do on RabbitMQ for messages that are due later. There are none."""

from __future__ import annotations

from typing import Any

from celery.worker import consumer

_Base: Any = consumer.Consumer  # its stubs leave out its blueprint
UNWANTED = "celery.worker.consumer.delayed_delivery:DelayedDelivery"


class Consumer(_Base):  # type: ignore[misc]  # so it is Any here
    """The same, with one step fewer."""

    class Blueprint(_Base.Blueprint):  # type: ignore[misc]  # as above
        """Its steps."""

        default_steps = tuple(step for step in _Base.Blueprint.default_steps if step != UNWANTED)

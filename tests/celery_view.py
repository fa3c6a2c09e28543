"""What Celery tells of a worker, as Flower and `celery inspect` ask for it: over the real broker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.events import EventReceiver
from celery.events.state import State, Task

from producer import Settings
from producer.broker import celery_url, transport_options
from tests.houses import until

ANSWER_SECONDS = 20.0
# How soon a receiver that is told to stop does.
LOOK_SECONDS = 0.1


class CeleryView:
    """Looks at the one worker of a broker."""

    def __init__(self, settings: Settings) -> None:
        """Connect nothing yet."""
        self.app = Celery("view", broker=celery_url(settings.redis_url), set_as_current=False)
        self.app.conf.broker_transport_options = transport_options(settings.redis_url, ANSWER_SECONDS)

    def depth(self, queue: str = "actions") -> int:
        """How many rings wait in the queue, of every priority."""
        with self.app.connection_for_read() as connection:
            channel: Any = connection.default_channel  # its stubs know no queues
            try:
                return int(channel.queue_declare(queue, passive=True).message_count)
            except connection.channel_errors:  # an empty list is no key of Redis's
                return 0

    def pool(self) -> dict[str, Any]:
        """What `celery inspect stats` tells of the pool."""
        answers = self.app.control.inspect(timeout=ANSWER_SECONDS, limit=1).stats()
        assert answers
        pool: dict[str, Any] = next(iter(answers.values()))["pool"]
        return pool

    def control(self, command: str, **arguments: Any) -> Any:
        """Give a command and wait for the worker's answer."""
        answers = self.app.control.broadcast(command, arguments, reply=True, timeout=ANSWER_SECONDS, limit=1)
        assert answers
        return next(iter(answers[0].values()))

    @contextmanager
    def events(self) -> Iterator[Events]:
        """Listen to what workers and producers tell, for as long as the block lasts."""
        with self.app.connection_for_read() as connection:
            events = Events(connection, self.app)
            thread = threading.Thread(target=events.listen, name="events")
            thread.start()
            try:
                assert events.listening.wait(ANSWER_SECONDS)
                yield events
            finally:
                events.receiver.should_stop = True
                thread.join()


class Events:
    """The events so far, and what Flower makes of them."""

    def __init__(self, connection: Any, app: Celery) -> None:
        """Hear nothing yet."""
        self.state: Any = State()  # the stubs of both leave out most of them
        self.receiver: Any = EventReceiver(connection, handlers={"*": self._hear}, app=app)
        self.heard: list[dict[str, Any]] = []
        self.listening = threading.Event()

    def listen(self) -> None:
        """Hear events until told to stop."""
        self.receiver.on_consume_ready = lambda *_, **__: self.listening.set()
        for _ in self.receiver.consume(limit=None, timeout=None, safety_interval=LOOK_SECONDS, wakeup=False):
            pass

    def of(self, task_id: object) -> list[dict[str, Any]]:
        """A ring's events, in the order in which they were heard."""
        return [event for event in list(self.heard) if event.get("uuid") == str(task_id)]

    def ended(self, task_id: object) -> dict[str, Any]:
        """The event by which a ring ended, waited for."""
        ends = ("task-succeeded", "task-failed", "task-retried", "task-revoked")
        return until(lambda: next((event for event in self.of(task_id) if event["type"] in ends), None) or {})

    def task(self, task_id: object) -> Task:
        """What Flower shows of a ring."""
        task: Task = self.state.tasks[str(task_id)]
        return task

    def _hear(self, event: dict[str, Any]) -> None:
        self.state.event(event)
        self.heard.append(event)

"""The peers' Celery app: the same actions without Surefoot, with the settings that celeryconfig.py gives Surefoot's.

A worker finds `app` by ``-A tests.benchmarks.bare`` and is told of its broker and result backend in the environment.
"""

from __future__ import annotations

import os
import time

from celery import Celery

from producer.broker import transport_options

BROKER, BACKEND = "BARE_BROKER_URL", "BARE_RESULT_BACKEND"
NOOP, WAIT = "bare.noop", "bare.wait"
QUEUE = "bare"


def make_app(broker_url: str, result_backend: str | None) -> Celery:
    """Return an app with both tasks; without a `result_backend` it keeps no results."""
    made = Celery("bare", broker=broker_url or None, backend=result_backend or None, set_as_current=False)
    made.conf.update(
        # Each line as in celeryconfig.py, so that what differs is Surefoot and nothing else.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        worker_send_task_events=True,
        task_send_sent_event=True,
        task_default_queue=QUEUE,
        task_ignore_result=not result_backend,
        broker_connection_retry_on_startup=True,
        broker_pool_acquire_timeout=5,
        broker_transport_options={**transport_options(broker_url, 3.0), "socket_timeout": 30.0},
    )
    made.task(name=NOOP)(_noop)
    made.task(name=WAIT)(_wait)
    return made


def _noop(number: int) -> int:
    return number


def _wait(number: int) -> int:
    time.sleep(1)
    return number


app = make_app(os.environ.get(BROKER, ""), os.environ.get(BACKEND))

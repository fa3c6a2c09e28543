"""What a user of Celery has beside actions: receivers of its signals, and a task of his own that Celery retries."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from celery import Task, shared_task, signals

# Names the file to which each signal adds a line.
HEARD = "TESTS_HEARD"


def _hear(sender: Any, signal: Any, task_id: str | None = None, state: str | None = None, **_: Any) -> None:
    # Celery says of whom it is with some signals; with the others its receivers ask for the request under way.
    line = {"signal": signal.name, "id": task_id or sender.request.id, "state": state}
    with Path(os.environ[HEARD]).open("a") as file:
        file.write(json.dumps(line) + "\n")


for _each in (
    signals.task_prerun,
    signals.task_success,
    signals.task_retry,
    signals.task_failure,
    signals.task_postrun,
):
    _each.connect(_hear)


@shared_task(
    name="celery.flaky", bind=True, autoretry_for=(ConnectionError,), max_retries=2, retry_kwargs={"countdown": 0.1}
)
def flaky(task: Task[Any, Any], times: int) -> int:
    """Fail so often with what Celery is to retry for; return how many retries it took."""
    if task.request.retries < times:
        raise ConnectionError("not yet")
    return int(task.request.retries)

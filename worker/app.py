"""The Celery app: one task per action, so that Flower, routing and limits work per action. Run it with

celery -A worker.app worker
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any
from uuid import UUID

from celery import Celery, Task
from celery.exceptions import Ignore, Retry

from producer.errors import JobFailed
from producer.ledger.states import State
from tasks import ActionSpec, load
from worker.attempt import Settlement
from worker.parts import Parts, assemble
from worker.settings import WorkerSettings
from worker.transport import install

settings = WorkerSettings.from_env()
actions = load(settings.action_modules)
install()
app = Celery("surefoot")
app.config_from_object("celeryconfig")


def parts() -> Parts:
    """Return this process's parts, made at the first use: a fork must not share connections with its parent."""
    return _parts(os.getpid())


@cache
def _parts(_pid: int) -> Parts:
    return assemble(settings, actions, app)


def _make_task(spec: ActionSpec) -> None:
    def answer(_task: Task[Any, Any], job_id: str) -> str:
        settlement = parts().runner.run(spec.name, UUID(job_id))
        return _as_celery_has_it(settlement)

    # JobFailed is expected: Celery logs it in one line instead of a traceback, which the ledger has.
    app.task(name=spec.name, bind=True, throws=(JobFailed,), typing=False)(answer)


def _as_celery_has_it(settlement: Settlement | None) -> str:
    """End the Celery task as the job's attempt ended, so that Flower and events show it as such.

    Raises:
        Ignore: Where there was nothing to do.
        Retry: Where the job waits; the due time is in the ledger, and no message is sent from here.
        JobFailed: Where it ended without a result.
    """
    if settlement is None:
        raise Ignore
    error = settlement.error and {k: settlement.error[k] for k in ("type", "message")}
    if settlement.becomes is State.SUCCEEDED:
        return f"{settlement.becomes} at attempt {settlement.attempt}"  # never the result: it may hold secrets
    failure = JobFailed(settlement.job_id, settlement.becomes, error)
    if settlement.becomes is State.WAITING:
        why, delay = f"waiting for {settlement.waiting_for}", settlement.delay
        raise Retry(why, exc=failure, when=delay)  # type: ignore[arg-type]  # a float is a Real
    raise failure


for _spec in actions.values():
    _make_task(_spec)

import worker.lifecycle  # noqa: E402, F401  connects Celery's signals, which need the app

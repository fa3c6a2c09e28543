"""The Celery app: one task per action, so that Flower, routing and limits work per action. Run it with

celery -A worker.app worker
"""

from __future__ import annotations

import os
from functools import cache, partial
from typing import Any
from uuid import UUID

from celery import Celery, Task
from celery.exceptions import Reject
from sqlalchemy.exc import OperationalError

from producer.errors import JobFailed, LedgerUnavailable
from tasks import ActionSpec, load
from worker.as_celery import JobsFailed, as_celery_has_it
from worker.canary import Listening
from worker.loop import wait_for
from worker.parts import Parts, assemble
from worker.perform import Closed
from worker.served import Served
from worker.settings import WorkerSettings
from worker.singly import not_rung_singly
from worker.stopping import recycle
from worker.transport import install

settings = WorkerSettings.from_env()
actions = load(settings.action_modules)
served = Served()  # the one part that forks share
install()
app = Celery("surefoot", events="worker.events:Events")
app.config_from_object("celeryconfig")
app.steps["consumer"].add(Listening)


def parts() -> Parts:
    """Return this process's parts, made at the first use: a fork must not share connections with its parent."""
    return _parts(os.getpid())


@cache
def _parts(_pid: int) -> Parts:
    made = assemble(settings, actions, app, served)
    made.runner.performer.threads.on_left_behind = partial(recycle, settings.threads_left_behind_cap)
    return made


def _make_task(spec: ActionSpec) -> None:
    def answer(task: Task[Any, Any], *job_ids: str) -> str:
        rung = [UUID(job_id) for job_id in dict.fromkeys(job_ids)]
        ids = not_rung_singly(parts().bell, spec.name, rung, task.request.delivery_info or {})
        if rung and not ids:
            return f"{len(rung)} jobs, rung for one by one"
        try:
            return as_celery_has_it(wait_for(parts().runner.run(spec.name, ids)), rung=len(ids))
        except Closed as error:
            raise Reject(str(error), requeue=True) from error
        except OperationalError as error:
            # In few words: with the traceback of all that was under way a child's answer is more than its pipe holds,
            # and half of one, where the child is told to end meanwhile, would keep the worker from ever stopping.
            raise LedgerUnavailable(str(error.orig).strip()) from None

    # These are expected: Celery logs them in one line instead of a traceback, which the ledger has.
    expected = (JobFailed, JobsFailed, LedgerUnavailable)
    app.task(name=spec.name, bind=True, throws=expected, typing=False, Request="worker.request:Request")(answer)


for _spec in actions.values():
    _make_task(_spec)

import worker.lifecycle  # noqa: E402, F401  connects Celery's signals, which need the app

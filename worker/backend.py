"""Celery's AsyncResult, answered from the ledger. Read-only: the runner writes outcomes, in the job's transaction."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import UUID

from celery import states
from celery.backends.base import BaseBackend, SyncBackendMixin
from celery.exceptions import TimeoutError  # noqa: A004  what Celery's callers catch
from sqlalchemy import Engine
from sqlalchemy.engine import Connection

from producer.errors import JobDegraded, JobFailed
from producer.ledger import reads
from producer.ledger.engine import open_engine, retrying
from producer.ledger.states import State
from producer.waiting import Waiting
from worker.settings import WorkerSettings

CONNECTIONS = 2

T = TypeVar("T")

DEGRADED = "DEGRADED"

# Celery has fewer states. Those that have no counterpart keep our name; but for DEGRADED they are not ready: `get`
# waits on.
CELERY_STATES: Mapping[State, str] = MappingProxyType(
    {
        State.AWAITING_APPROVAL: "AWAITING_APPROVAL",
        State.QUEUED: states.PENDING,
        State.WAITING: states.RETRY,
        State.CLAIMED: states.STARTED,
        State.RUNNING: states.STARTED,
        State.IN_DOUBT: "IN_DOUBT",
        State.SUCCEEDED: states.SUCCESS,
        State.DEGRADED: DEGRADED,  # a fallback must never be taken for the result
        State.FAILED: states.FAILURE,
        State.DEAD: states.FAILURE,
        State.CANCELLED: states.REVOKED,
        State.REJECTED: states.REVOKED,
        State.EXPIRED: states.REVOKED,
    }
)


class LedgerBackend(BaseBackend, SyncBackendMixin):
    """A result backend that looks and never writes."""

    supports_autoexpire = True  # what is kept and for how long is the ledger's business
    persistent = True
    READY_STATES = states.READY_STATES | {DEGRADED}
    EXCEPTION_STATES = states.EXCEPTION_STATES | {DEGRADED}
    PROPAGATE_STATES = states.PROPAGATE_STATES | {DEGRADED}
    _cache: dict[str, dict[str, Any]]  # Celery's, bounded

    def __init__(self, app: Any, **options: Any) -> None:
        """Connect nothing yet; where to is a setting, not part of Celery's URL, so that no log shows it."""
        super().__init__(app, **options | {"url": None})
        self.thread_safe = True  # else Celery makes one per thread, each with its own connections
        self._engine: Engine | None = None
        self._settings = WorkerSettings.from_env()
        self._waiting = Waiting(self._settings.redis_url, states_of=self._states_of, over=_is_ready)

    def store_result(self, task_id: str, result: Any, state: str, *_: Any, **_options: Any) -> Any:  # noqa: ARG002
        """Write nothing. What Celery knows of a task that died, the lease and the rescue will find out truly."""
        return result

    def get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        """Read a job as Celery describes a task; one that is not there is PENDING, as Celery has it."""
        job_id = _as_uuid(task_id)
        record = None if job_id is None else self._read(lambda c: reads.job_by_id(c, self._settings.tenant, job_id))
        if record is None:
            return {"task_id": task_id, "status": states.PENDING, "result": None, "traceback": None, "children": []}
        error = record.error or {}
        status = CELERY_STATES[record.state]
        ended_badly = status in self.EXCEPTION_STATES
        failure = _failure(record)
        return {
            "task_id": task_id,
            "status": status,
            "result": failure if ended_badly else record.result,
            "traceback": error.get("traceback"),
            "children": [],
            "date_done": record.finished_at,
            "name": record.action,
        }

    _get_task_meta_for = get_task_meta_for

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002  Celery's signature
        """Read a job, from the cache where Celery asked for it and it has ended."""
        if cache and task_id in self._cache:
            return self._cache[task_id]
        meta = self.get_task_meta_for(task_id)
        if cache and meta["status"] in self.READY_STATES:
            self._cache[task_id] = meta
        return meta

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,  # noqa: FBT001, FBT002  Celery's signature
        on_interval: Callable[[], Any] | None = None,
    ) -> dict[str, Any]:
        """Wait until a job is ready, woken by its end; and read it.

        Args:
            task_id: The job.
            timeout: Seconds; None waits for ever.
            interval: How often to call `on_interval`, in seconds. The ledger is not asked that often.
            no_ack: Celery's; there is nothing to acknowledge.
            on_interval: What to do between; what it raises ends the waiting.

        Raises:
            TimeoutError: Celery's, if the job is not ready by then.
            LedgerUnavailable: If Postgres is away.
        """
        job_id = _as_uuid(task_id)
        if job_id is None:
            pending: dict[str, Any] = super().wait_for(task_id, timeout, interval, no_ack, on_interval)
            return pending
        self._ensure_not_eager()  # type: ignore[attr-defined]  # its stubs leave it out
        until = math.inf if timeout is None else time.monotonic() + timeout
        while (meta := self.get_task_meta(task_id))["status"] not in self.READY_STATES:
            if on_interval:
                on_interval()
            if time.monotonic() >= until:
                raise TimeoutError("The operation timed out.")
            self._waiting.wait(job_id, until=until, every=interval, meanwhile=on_interval)
        return meta

    def wait_for_pending(self, result: Any, *args: Any, **options: Any) -> Any:
        """Wait for a result as Celery does; raise for one that a fallback stands in for, which Celery would return.

        Raises:
            JobDegraded: Unless `propagate` is off.
        """
        answer: Any = super().wait_for_pending(result, *args, **options)
        if options.get("propagate", True) and isinstance(answer, JobDegraded):
            raise answer
        return answer

    def _forget(self, task_id: str) -> None:
        self._cache.pop(task_id, None)  # the ledger is the record; only what we remembered goes

    def ensure_chords_allowed(self) -> None:
        """Refuse: fan-out belongs into the ledger, where it survives.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("Surefoot has no chords; enqueue follow-up jobs instead")

    def _states_of(self, job_ids: Sequence[UUID]) -> dict[UUID, State]:
        return self._read(lambda c: reads.states_of(c, job_ids))

    def _read(self, read: Callable[[Connection], T]) -> T:
        if self._engine is None:
            self._engine = open_engine(self._settings.database_url, connections=CONNECTIONS, name="surefoot-results")
        engine = self._engine

        def once() -> T:
            with engine.connect() as connection:
                return read(connection)

        return retrying(once)


def _is_ready(state: State | None) -> bool:
    return state is not None and CELERY_STATES[state] in LedgerBackend.READY_STATES


def _failure(record: reads.JobRecord) -> JobFailed:
    error = record.error and {name: record.error[name] for name in ("type", "message")}
    if record.state is State.DEGRADED:
        return JobDegraded(record.id, record.degraded_by or "", record.fallback, error)
    return JobFailed(record.id, record.state, error)


def _as_uuid(task_id: str) -> UUID | None:
    try:
        return UUID(task_id)
    except ValueError:
        return None

"""The asyncio pool: a thousand actions in flight in one process, for `celery worker -P custom`.

One event loop, and on it one greenlet per task that runs Celery's own tracer, unchanged: so events, signals, inspect,
revoke and Flower see what they see with any other pool. Where the tracer's task waits, it switches back to the loop.

Celery imports this module before its own app and before the folder it was started in is on the path, so `worker` must
be installed. The consumer's thread calls the pool; everything about a task that runs happens on the loop's thread.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from billiard.einfo import ExceptionInfo
from celery.concurrency import prefork
from celery.concurrency.base import BasePool
from celery.exceptions import SoftTimeLimitExceeded
from celery.worker import state as worker_state
from greenlet import getcurrent
from kombu.asynchronous import Hub

from producer.ring import Ring
from worker.beside import Beside
from worker.loop import CutOff, Reason, TaskGreenlet, cut_off, process_loop
from worker.stopping import CUT_OFF_SECONDS, note_stop

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("worker")

# Celery's word for whoever runs a task; ours are not processes, so they are numbers that no process has.
FIRST_ID = 1 << 32
# How often a stopping pool looks whether all have ended, and sends the acknowledgements of those that have.
PUMP_SECONDS = 0.02
_PREFORK: Any = prefork  # its stubs leave out what is used here
_Base: Any = BasePool  # the same


@dataclass(slots=True, weakref_slot=True, eq=False)
class PoolTask:
    """One task in the pool.

    Attributes:
        id: What Celery calls its pid.
        ring: What Celery calls its task's id.
        target: Celery's tracer, with its arguments.
        begun: Whether Celery has been told that it begins.
        done: Whether Celery has been told how it ended, or must not be told any more.
        cut: Shared with the attempts that it runs.
    """

    pool: TaskPool
    id: int
    ring: str
    target: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    callbacks: Mapping[str, Callable[..., Any] | None]
    soft: float | None
    hard: float | None
    cut: CutOff = field(default_factory=CutOff)
    running: asyncio.Task[None] | None = None
    soft_limit_hit: bool = False
    begun: bool = False
    done: bool = False

    def terminate(self, _signal: int | None = None) -> None:
        """Cut the task off; Celery calls this for a revoked request, and for all of them when it stops at once."""
        self.pool.terminate_job(self.id)

    def tell(self, name: str, *args: Any) -> None:
        """Call one of Celery's callbacks; what it raises is Celery's defect and must not end the loop's task."""
        callback = self.callbacks.get(name)
        if callback is None:
            return
        try:
            callback(*args)
        except Exception:
            log.exception("pool.callback_failed", callback=name)

    def end(self, name: str, *args: Any) -> None:
        """Tell Celery how the task ended, once."""
        if not self.done:
            self.done = True
            self.tell(name, *args)


class TaskPool(_Base):  # type: ignore[misc]  # so it is Any here
    """Celery's pool interface over one event loop. `limit` is how many tasks Celery may hand over at once."""

    body_can_be_buffer = True
    # Stopping waits for tasks, which a signal handler must not.
    signal_safe = False
    task_join_will_block = False

    limit: int

    _ids = itertools.count(FIRST_ID)
    _hub: Hub | None = None

    def on_start(self) -> None:
        """Start the loop."""
        self._tasks: dict[int, PoolTask] = {}
        self._until = math.inf
        self._loop = process_loop()
        from worker.app import parts  # noqa: PLC0415  Celery imports this module before its app

        self._runner, relay = parts().runner, parts().relay
        self._give_places()
        self._beside = Beside(self._runner.run)
        self._runner.gates.limits.serve_here(self._beside.begin)
        relay.serve_here(lambda rings: self._loop.call_soon_threadsafe(self._begin_beside, rings))

    def register_with_event_loop(self, loop: Hub) -> None:
        """Remember whose acknowledgements are to be sent; kombu forgets its current hub with each lost connection."""
        self._hub = loop

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        correlation_id: str = "",
        **callbacks: Any,
    ) -> PoolTask:
        """Begin a task; called from the consumer's thread, returns at once."""
        task = PoolTask(
            pool=self,
            id=next(self._ids),
            ring=correlation_id,
            target=target,
            args=args,
            kwargs=kwargs or {},
            callbacks=callbacks,
            soft=soft_timeout or self.options.get("soft_timeout"),
            hard=timeout or self.options.get("timeout"),
        )
        self._tasks[task.id] = task
        self._loop.call_soon_threadsafe(self._begin, task)
        return task

    def terminate_job(self, pid: int, signal: int | None = None) -> None:  # noqa: ARG002  Celery's signature
        """Cut off one task: it is not told to Celery any more, and its attempts settle as far as they came."""
        task = self._tasks.get(pid)
        if task is not None:
            # Celery asks alike for a ring that somebody revoked and for all that still run when the worker stops, and
            # it does the latter before it says that it stops.
            revoked = task.ring in worker_state.revoked
            self._loop.call_soon_threadsafe(self._cut_off, task, "revoked" if revoked else "stopping")

    def on_stop(self) -> None:
        """Wait for every task (a warm shutdown), sending acknowledgements all the while.

        Nothing else runs them by now; a worker killed at the end of its grace would have all its rings handed out
        again. What has not begun is not begun any more: its rings go back.
        """
        if worker_state.should_terminate:  # told to go at once, Celery has its pool stop, too, before it terminates it
            self.on_terminate()
            return
        note_stop()
        self._loop.call_soon_threadsafe(self._runner.performer.close)
        self._join()

    def on_terminate(self) -> None:
        """Cut every task off (a cold shutdown) and wait a little for what they still have to write.

        Safe to call twice, and within `on_stop`, from a signal's handler: the wait is one.
        """
        self._until = min(self._until, time.monotonic() + CUT_OFF_SECONDS)
        for pid in list(self._tasks):
            self.terminate_job(pid)
        self._loop.call_soon_threadsafe(self._beside.cut_off)
        self._join()

    def grow(self, n: int = 1) -> None:
        """Let Celery hand over `n` tasks more at once (`celery control pool_grow`)."""
        self.limit += n
        self._give_places()

    def shrink(self, n: int = 1) -> None:
        """Let Celery hand over `n` tasks fewer at once (`celery control pool_shrink`); running ones go on."""
        self.limit = max(1, self.limit - n)
        self._give_places()

    def _give_places(self) -> None:
        self._runner.performer.places.limit = self.limit

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        return info | {"in-flight": len(self._tasks)} | self._runner.stats()

    def _join(self) -> None:
        while (self._tasks or self._beside) and time.monotonic() < self._until:
            time.sleep(PUMP_SECONDS)
            if self._hub is not None:
                _PREFORK._run_ready_callbacks(self._hub)  # noqa: SLF001  public to no one, and what prefork itself uses

    # ---- on the loop's thread ----------------------------------------------------------------------------------

    def _begin_beside(self, rings: Sequence[Ring]) -> None:
        if len(self._beside) < self.limit:  # else they are the relays' still, which look at them again
            self._beside.begin(rings)

    def _begin(self, task: PoolTask) -> None:
        task.running = self._loop.create_task(self._run(task), name=f"ring {task.id}")
        # Not in a `finally` of its own: one that is cut off before its first step never gets there.
        task.running.add_done_callback(lambda _: self._tasks.pop(task.id, None))

    async def _run(self, task: PoolTask) -> None:
        cut_off.set(task.cut)
        limits = [
            self._loop.call_later(seconds, reach, task)
            for seconds, reach in ((task.soft, self._reach_soft_limit), (task.hard, self._reach_hard_limit))
            if seconds
        ]
        try:
            await _drive(task)
        except asyncio.CancelledError:
            if task.cut.reason == "time limit":
                task.end("timeout_callback", False, task.hard)
            task.done = True
        except BaseException:
            log.exception("pool.task_failed", task=task.id)
            task.end("error_callback", ExceptionInfo())
        finally:
            for limit in limits:
                limit.cancel()

    def _reach_soft_limit(self, task: PoolTask) -> None:
        if task.running is not None and task.cut.reason is None:
            task.tell("timeout_callback", True, task.soft)
            task.soft_limit_hit = True
            task.cut.reason = "time limit"
            task.running.cancel()

    def _reach_hard_limit(self, task: PoolTask) -> None:
        task.soft_limit_hit = False
        self._cut_off(task, "time limit")

    def _cut_off(self, task: PoolTask, reason: Reason) -> None:
        if reason == "revoked" and not task.begun:
            return  # once it is told that the ring begins, Celery has it cut off anew, and only then acknowledges it
        task.cut.reason = task.cut.reason or reason
        if reason != "time limit":
            task.done = True  # Celery has said how it ended, or hands the ring back when the worker is gone
        if task.running is not None:
            task.running.cancel()


async def _drive(task: PoolTask) -> None:
    """Run the tracer in a greenlet, and await for it whatever it hands over to be awaited."""
    tracer = TaskGreenlet(lambda: _trace(task))
    # One context for both: what a signal's receiver binds is there in the action, and the other way round.
    tracer.gr_context = getcurrent().gr_context
    awaited = tracer.switch()
    while not tracer.dead:
        try:
            value = await awaited
        except asyncio.CancelledError:
            if not task.soft_limit_hit:
                tracer.throw()  # the rest of the tracer would report an end that is not one
                raise
            task.soft_limit_hit = False
            _uncancel()
            awaited = tracer.throw(SoftTimeLimitExceeded(task.soft))
        except BaseException as error:  # noqa: BLE001  it is the tracer's to deal with
            awaited = tracer.throw(error)
        else:
            awaited = tracer.switch(value)


def _trace(task: PoolTask) -> None:
    task.begun = True
    task.tell("accept_callback", task.id, time.monotonic())
    try:
        returned = task.target(*task.args, **task.kwargs)
    except Exception:  # noqa: BLE001  the message could not be read, or the like: as a process that failed tells it
        task.end("error_callback", ExceptionInfo())
    else:
        task.end("callback", returned)


def _uncancel() -> None:
    current = asyncio.current_task()
    if current is not None:
        current.uncancel()

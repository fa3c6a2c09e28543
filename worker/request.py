"""Celery's record of a ring in the worker, which tells Flower how it ended, and who performs it why he is to end."""

from __future__ import annotations

from typing import Any, ClassVar

from billiard import einfo
from celery.worker.request import Request as CeleryRequest

from producer.errors import JobDegraded
from worker.stopping import tell_of_limit

FAILED = "task-failed"
# No event of Celery's own: whoever keeps a state of its events, as Flower does, shows the task as DEGRADED.
DEGRADED = "task-degraded"

_Base: Any = CeleryRequest  # its stubs leave out most of it, and billiard's what a pool wraps an error in
_Einfo: Any = einfo


class Request(_Base):  # type: ignore[misc]  # so it is Any here
    """A ring whose job a fallback stands in for is shown as neither a success nor a failure.

    And one that is begun while its worker ends at once is cut off as those are that were begun before.
    """

    # The pool of a worker that ends at once.
    ends_with: ClassVar[Any] = None
    _degraded = False

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:  # noqa: FBT001, FBT002  Celery's signature
        """Note which way it failed, and do as Celery does."""
        error = exc_info.exception
        self._degraded = isinstance(
            error.exc if isinstance(error, _Einfo.ExceptionWithTraceback) else error, JobDegraded
        )
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Note who performs it, and cut it off where the worker ends at once and could not before it knew that."""
        super().on_accepted(pid, time_accepted)
        if self.ends_with is not None:
            self.cancel(self.ends_with, emit_retry=False)

    def on_timeout(self, soft: bool, timeout: float) -> None:  # noqa: FBT001  as above
        """Note it, and have whoever is to be killed for it know that, to write it down."""
        if not soft and self.worker_pid is not None:
            tell_of_limit(self.worker_pid)
        super().on_timeout(soft, timeout)

    def send_event(self, kind: str, **fields: Any) -> Any:
        """Tell whoever listens."""
        return super().send_event(DEGRADED if self._degraded and kind == FAILED else kind, **fields)

"""Celery's record of a ring in the worker, which tells Flower how it ended."""

from __future__ import annotations

from typing import Any

from billiard import einfo
from celery.worker.request import Request as CeleryRequest

from producer.errors import JobDegraded

FAILED = "task-failed"
# No event of Celery's own: whoever keeps a state of its events, as Flower does, shows the task as DEGRADED.
DEGRADED = "task-degraded"

_Base: Any = CeleryRequest  # its stubs leave out most of it, and billiard's what a pool wraps an error in
_Einfo: Any = einfo


class Request(_Base):  # type: ignore[misc]  # so it is Any here
    """A ring whose job a fallback stands in for is shown as neither a success nor a failure."""

    _degraded = False

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:  # noqa: FBT001, FBT002  Celery's signature
        """Note which way it failed, and do as Celery does."""
        error = exc_info.exception
        self._degraded = isinstance(
            error.exc if isinstance(error, _Einfo.ExceptionWithTraceback) else error, JobDegraded
        )
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def send_event(self, kind: str, **fields: Any) -> Any:
        """Tell whoever listens."""
        return super().send_event(DEGRADED if self._degraded and kind == FAILED else kind, **fields)

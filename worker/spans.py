"""An attempt as a span: what its action calls belongs to it, and the job's own span is what it follows from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from producer.ledger.states import State
from producer.spans import context_of, traceparent_of, tracer
from producer.trace import child_of
from worker.attempt import Attempt, Settlement

BADLY = frozenset({State.FAILED, State.DEAD, State.IN_DOUBT})


class AttemptSpan(Protocol):
    """One attempt's."""

    traceparent: str

    def settled(self, settlement: Settlement) -> None:
        """Say how it ended."""


def attempt_span(attempt: Attempt) -> AbstractContextManager[AttemptSpan]:
    """Return the span of an attempt, for as long as that lasts."""
    exporting = tracer()
    return _Unseen(attempt) if exporting is None else _seen(exporting, attempt)


class _Unseen:
    """Only an id."""

    __slots__ = ("traceparent",)

    def __init__(self, attempt: Attempt) -> None:
        self.traceparent = child_of(attempt.traceparent)

    def __enter__(self) -> AttemptSpan:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def settled(self, settlement: Settlement) -> None:
        pass


class _Seen:
    def __init__(self, span: Any) -> None:
        self._span = span
        self.traceparent = traceparent_of(span)

    def settled(self, settlement: Settlement) -> None:
        from opentelemetry.trace import StatusCode  # noqa: PLC0415  an extra

        self._span.set_attribute("surefoot.state", str(settlement.becomes))
        self._span.set_attribute("surefoot.why", settlement.why)
        if settlement.error is not None:
            # No message: it may quote what the logs and the ledger redact.
            self._span.set_attribute("error.type", str(settlement.error.get("type")))
        if settlement.becomes in BADLY:
            self._span.set_status(StatusCode.ERROR, str(settlement.becomes))


@contextmanager
def _seen(exporting: Any, attempt: Attempt) -> Iterator[AttemptSpan]:
    from opentelemetry.trace import SpanKind  # noqa: PLC0415  an extra

    with exporting.start_as_current_span(
        attempt.action,
        context=context_of(attempt.traceparent),
        kind=SpanKind.CONSUMER,
        attributes={
            "messaging.system": "celery",
            "messaging.destination.name": attempt.queue,
            "surefoot.job_id": str(attempt.job_id),
            "surefoot.request_id": attempt.request_id,
            "surefoot.attempt": attempt.number,
        },
        record_exception=False,  # as above
        set_status_on_exception=True,
    ) as span:
        yield _Seen(span)

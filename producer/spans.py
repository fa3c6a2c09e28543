"""Spans for OpenTelemetry, where a process exports any; else only their ids, which go along in any case.

A job's row carries the span that asked for it, so that whoever performs it, hours later and in another process, belongs
to the same trace. Nothing here loads OpenTelemetry but `export`: where nobody has, there is no cost.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from producer.errors import SettingsError
from producer.trace import child_of

if TYPE_CHECKING:
    from producer.envelope import Request

NONE, OTLP = "none", "otlp"
TRACES = (NONE, OTLP)
SCOPE = "surefoot"
SDK = "opentelemetry.sdk.trace"


def export(service: str, traces: str) -> None:
    """Have this process send its spans to a collector, where `traces` says so: as OTEL_EXPORTER_OTLP_ENDPOINT has it.

    Raises:
        SettingsError: If OpenTelemetry is not installed.
    """
    if traces != OTLP:
        return
    try:
        from opentelemetry import trace  # noqa: PLC0415  an extra
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  as above
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  as above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  as above
    except ModuleNotFoundError as error:
        raise SettingsError(f"{error.name} is not installed; SUREFOOT_TRACES={OTLP} needs surefoot[otel]") from error
    name = os.environ.get("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def tracer() -> Any:
    """Return this process's tracer; None where it exports nothing, whoever would have set that up."""
    sdk = sys.modules.get(SDK)
    if sdk is None:
        return None
    from opentelemetry import trace  # noqa: PLC0415  it is loaded by now

    provider = trace.get_tracer_provider()
    return provider.get_tracer(SCOPE) if isinstance(provider, sdk.TracerProvider) else None


def context_of(traceparent: str) -> Any:
    """Return OpenTelemetry's context in which that is the current span."""
    from opentelemetry import trace  # noqa: PLC0415  as above

    _, trace_id, span_id, flags = traceparent.split("-")
    parent = trace.SpanContext(int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(int(flags, 16)))
    return trace.set_span_in_context(trace.NonRecordingSpan(parent))


def traceparent_of(span: Any) -> str:
    """Return a span as W3C writes it."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


@contextmanager
def asking(tracer: Any, requests: Sequence[Request]) -> Iterator[Sequence[Request]]:
    """Have each request be a span while it is accepted: of its own trace, where it names one, or of the caller's."""
    from opentelemetry.trace import SpanKind  # noqa: PLC0415  as above

    spans = [
        tracer.start_span(
            f"enqueue {request.action}",
            context=context_of(request.trace) if request.trace else None,
            kind=SpanKind.PRODUCER,
            attributes=_known({"surefoot.action": request.action, "surefoot.request_id": request.request_id}),
        )
        for request in requests
    ]
    try:
        yield [replace(each, trace=traceparent_of(span)) for each, span in zip(requests, spans, strict=True)]
    except BaseException as error:
        for span in spans:
            span.set_attribute("error.type", type(error).__name__)
        raise
    finally:
        for span in spans:
            span.end()


def asked_within(action: str, parent: str) -> str:
    """Return the span of a job that an attempt, whose span is `parent`, asks for: a moment, where it is exported."""
    exporting = tracer()
    if exporting is None:
        return child_of(parent)
    from opentelemetry.trace import SpanKind  # noqa: PLC0415  as above

    span = exporting.start_span(f"enqueue {action}", context=context_of(parent), kind=SpanKind.PRODUCER)
    span.end()
    return traceparent_of(span)


def _known(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}

"""How this side logs: structlog, one line an event, as JSON or for a terminal.

Event names are ``noun.verb_past`` with the facts as keys; docs/reference.md lists every one of them. Whatever runs
inside an attempt carries its trace_id, request_id, job_id, action and attempt, because `bound` binds them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import structlog

from producer.redact import redact
from producer.trace import current_traceparent, trace_id_of
from worker.attempt import Attempt

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("worker")
AUTHORS_LOG: structlog.typing.FilteringBoundLogger = structlog.get_logger("action")

# The ids of the attempt under way: on every line that is logged inside it, by whomever.
attempt_ids: ContextVar[Mapping[str, Any]] = ContextVar("attempt_ids", default=MappingProxyType({}))

# Words and ids of our own making, on every line: looking for secrets in them would cost more than the rest of a line.
OURS = frozenset({"event", "level", "timestamp", "job_id", "trace_id", "action", "attempt", "state", "why"})

# Celery's own lines about single tasks say less than ours, and say it without the ids.
QUIET = ("celery.worker.strategy", "celery.app.trace", "httpx", "httpcore", "httpx2", "openai", "alembic")


def configure(style: str, level: str, *, stream: Any = None) -> None:
    """Have structlog and the standard library's logging write through the same processors, secrets redacted.

    Args:
        style: ``json``, ``console``, or ``auto`` for the latter on a terminal.
        level: ``debug``, ``info``, ``warning`` or ``error``.
        stream: Where to write; None is standard error.
    """
    stream = sys.stderr if stream is None else stream
    console = style == "console" or (style == "auto" and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        _with_attempt_ids,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if console else "iso", utc=not console),
        structlog.processors.format_exc_info,  # before the redaction: a traceback quotes what it failed on
        _redacted,
    ]
    # Straight to the stream: by way of the standard library a line costs twice as much, and it is one a job.
    structlog.configure(
        processors=[*shared, _renderer(console=console)],
        logger_factory=lambda *names: Lines(names[0] if names else "", stream),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _renderer(console=console)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class Lines:
    """What structlog hands its finished lines to. A stream that takes none any more stops nothing."""

    def __init__(self, name: str, stream: Any) -> None:
        """Write to `stream`; `name` is what `structlog.get_logger` was given."""
        self.name, self._stream = name, stream

    def msg(self, line: str) -> None:
        """Write one line."""
        with suppress(OSError, ValueError):  # a full disk, a closed pipe
            self._stream.write(f"{line}\n")
            self._stream.flush()

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


@contextmanager
def bound(attempt: Attempt, traceparent: str) -> Iterator[None]:
    """Bind an attempt's ids to every line, and its span to every call, inside the block."""
    span = current_traceparent.set(traceparent)
    ids = attempt_ids.set(
        {
            "trace_id": trace_id_of(traceparent),
            "request_id": attempt.request_id,
            "job_id": str(attempt.job_id),
            "action": attempt.action,
            "attempt": attempt.number,
        }
    )
    try:
        yield
    finally:
        attempt_ids.reset(ids)
        current_traceparent.reset(span)


def _renderer(*, console: bool) -> structlog.typing.Processor:
    return structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer(ensure_ascii=False)


def _with_attempt_ids(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {**attempt_ids.get(), **line}


def _redacted(logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # What an action's author logs, or somebody's library, is free text under any name.
    ours = OURS if getattr(logger, "name", None) == "worker" else frozenset()
    for name, value in line.items():
        if value is not None and name not in ours:
            line[name] = redact({name: value})[name]
    return line

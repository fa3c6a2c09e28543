"""How this side logs: structlog, one line an event, as JSON or for a terminal.

Event names are ``noun.verb_past`` with the facts as keys; docs/reference.md lists every one of them. Whatever runs
inside an attempt carries its trace_id, request_id, job_id, action and attempt, because `bound` binds them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog

from producer.redact import redact
from producer.trace import current_traceparent, trace_id_of
from worker.attempt import Attempt

log: structlog.stdlib.BoundLogger = structlog.get_logger("worker")
AUTHORS_LOG: structlog.stdlib.BoundLogger = structlog.get_logger("action")

# Words and ids of our own making, on every line: looking for secrets in them would cost more than the rest of a line.
OURS = frozenset({"event", "level", "timestamp", "job_id", "trace_id", "action", "attempt", "state", "why"})

# Celery's own lines about single tasks say less than ours, and say it without the ids.
QUIET = ("celery.worker.strategy", "celery.app.trace", "httpx", "httpcore", "httpx2", "openai", "alembic")


def configure(style: str, level: str, *, stream: Any = None) -> None:
    """Send structlog and the standard library's logging through one formatter, secrets redacted.

    Args:
        style: ``json``, ``console``, or ``auto`` for the latter on a terminal.
        level: ``debug``, ``info``, ``warning`` or ``error``.
        stream: Where to write; None is standard error.
    """
    stream = sys.stderr if stream is None else stream
    console = style == "console" or (style == "auto" and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if console else "iso", utc=not console),
        structlog.processors.format_exc_info,  # before the redaction: a traceback quotes what it failed on
        _redacted,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_rendering(console=console))
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


@contextmanager
def bound(attempt: Attempt, traceparent: str) -> Iterator[None]:
    """Bind an attempt's ids to every line, and its span to every call, inside the block."""
    token = current_traceparent.set(traceparent)
    ids = {
        "trace_id": trace_id_of(traceparent),
        "request_id": attempt.request_id,
        "job_id": str(attempt.job_id),
        "action": attempt.action,
        "attempt": attempt.number,
    }
    try:
        with structlog.contextvars.bound_contextvars(**ids):
            yield
    finally:
        current_traceparent.reset(token)


def _rendering(*, console: bool) -> list[structlog.typing.Processor]:
    final: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    return [structlog.stdlib.ProcessorFormatter.remove_processors_meta, final]


def _redacted(logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # What an action's author logs, or somebody's library, is free text under any name.
    ours = OURS if getattr(logger, "name", None) == "worker" else frozenset()
    return {name: value if name in ours else redact({name: value})[name] for name, value in line.items()}

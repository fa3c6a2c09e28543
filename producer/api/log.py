"""How the API logs: structlog, a line of JSON for each event, secrets redacted; docs/reference.md lists them."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from producer.redact import redact

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("api")


def configure() -> None:
    """Have this process log so; what other packages say comes along from `warning` on."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redacted,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Others()])


class _Others(logging.Handler):
    """Has what other packages say be a line as any: whoever reads the log reads JSON."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        log.warning("api.others_said", by=record.name, words=record.getMessage(), exc_info=record.exc_info or None)


def _redacted(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return dict(redact(line))

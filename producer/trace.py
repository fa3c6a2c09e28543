"""The W3C trace context that runs through an action: in from the caller, out in its HTTP calls.

Kept to the ``traceparent`` header (https://www.w3.org/TR/trace-context/), so that no tracing library is needed to
follow a job from a producer's log to a worker's and on.
"""

from __future__ import annotations

import os
import random
import re
from contextvars import ContextVar

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

# Ids must be unique and need not be secret. The system's own randomness costs a call to the kernel each time, at which
# other threads get their turn; and nobody who seeds Python's shared generator may make ids repeat themselves.
_ids = random.Random()  # noqa: S311  no secret
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)  # or a child would go on with its parent's ids

# The span that the current code belongs to; "" where nobody began one.
current_traceparent: ContextVar[str] = ContextVar("surefoot_traceparent", default="")


def is_traceparent(text: object) -> bool:
    """Whether `text` is a version-00 traceparent with ids that are not all zero."""
    return isinstance(text, str) and _TRACEPARENT.fullmatch(text) is not None


def new_traceparent() -> str:
    """Return a span of the current trace, or of a new one where there is none."""
    current = current_traceparent.get()
    return child_of(current) if current else f"00-{_digits(32)}-{_digits(16)}-01"


def child_of(traceparent: str) -> str:
    """Return a new span of the same trace, with the same flags."""
    version, trace_id, _, flags = traceparent.split("-")
    return f"{version}-{trace_id}-{_digits(16)}-{flags}"


def trace_id_of(traceparent: str) -> str:
    """Return the 32 hexadecimal digits that every span of one trace shares."""
    return traceparent.split("-")[1]


def _digits(count: int) -> str:
    """Return so many random hexadecimal digits that are not all zero, which would be no id."""
    return f"{_ids.getrandbits(4 * count) or 1:0{count}x}"

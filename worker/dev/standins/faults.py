"""Which request goes wrong, and how: decided beforehand, so that a demo can be repeated fault for fault.

A plan names units of work, and for each what its first requests meet. Then the unit works: every retry ends.
This file knows nothing of HTTP or SMTP; `http_server` and `mail` make the faults happen.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType


class Service(StrEnum):
    """The stand-ins that can fail."""

    LLM = "llm"
    ORDERS = "orders"
    MAIL = "mail"


class Kind(StrEnum):
    """What a request meets instead of its answer. Only a lost answer leaves an effect behind."""

    TIMEOUT = "timeout"  # no answer until the client gives up
    RATE_LIMIT = "rate_limit"  # 429 and when to come back
    UNAVAILABLE = "unavailable"  # 503
    RESET = "reset"  # the connection is torn down instead of an answer
    LOST_ANSWER = "lost_answer"  # the effect happens, and the connection is torn down instead of its answer
    SMTP_421 = "smtp_421"  # the recipient is refused for now, and the connection closed
    SMTP_451 = "smtp_451"  # the message is refused for now, after it was sent and before it is accepted


_HTTP_KINDS = frozenset({Kind.TIMEOUT, Kind.RATE_LIMIT, Kind.UNAVAILABLE, Kind.RESET, Kind.LOST_ANSWER})
KINDS_OF: Mapping[Service, frozenset[Kind]] = MappingProxyType(
    {
        Service.LLM: _HTTP_KINDS,
        Service.ORDERS: _HTTP_KINDS,
        Service.MAIL: frozenset({Kind.SMTP_421, Kind.SMTP_451, Kind.LOST_ANSWER}),
    }
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        kind: What the request meets.
        retry_after_seconds: When a rate-limited client may come back. Whole seconds go out as
            ``Retry-After``, which cannot say anything finer, others as ``retry-after-ms``. Else unused.
    """

    kind: Kind
    retry_after_seconds: float = 1


Plan = Mapping[tuple[Service, str], tuple[Fault, ...]]


@dataclass(frozen=True, slots=True)
class Injected:
    """One fault that a request has met.

    Attributes:
        service: The stand-in that failed.
        key: The unit of work that met it.
        kind: What it met.
        at: When, in UTC.
    """

    service: Service
    key: str
    kind: Kind
    at: datetime


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Faults:
    """The plan being carried out, and the record of it. Safe to share among threads."""

    def __init__(self, plan: Plan, *, now: Callable[[], datetime] = _utc_now) -> None:
        """Take up a plan.

        Raises:
            ValueError: If the plan asks a service for a kind of fault that it cannot have.
        """
        for (service, key), faults in plan.items():
            if impossible := {fault.kind for fault in faults} - KINDS_OF[service]:
                able = ", ".join(sorted(KINDS_OF[service]))
                raise ValueError(f"{service} cannot meet {sorted(impossible)!r} at {key!r}; it can meet {able}")
        self.plan: Plan = MappingProxyType(dict(plan))
        self._now = now
        self._lock = threading.Lock()
        self._met: Counter[tuple[Service, str]] = Counter()
        self._injected: list[Injected] = []

    def next(self, service: Service, key: str) -> Fault | None:
        """Say what this request meets, and record it; None lets it through."""
        with self._lock:
            met = self._met[service, key]
            faults = self.plan.get((service, key), ())
            if met >= len(faults):
                return None
            self._met[service, key] += 1
            self._injected.append(Injected(service, key, faults[met].kind, self._now()))
            return faults[met]

    @property
    def injected(self) -> list[Injected]:
        """The faults so far, in their order; a copy."""
        with self._lock:
            return list(self._injected)

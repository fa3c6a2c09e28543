"""Who may do what: a key with scopes, of one tenant; and how often."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from producer.acting import act_as
from producer.api.problems import Problem
from producer.api.settings import NONE_ON_LOOPBACK, REQUIRED
from producer.client import Producer
from producer.keys import SCOPES
from producer.ledger.keys import ApiKey, Scope

# Of those whom nobody knows; a key has 256 bits, so this protects the ledger, not the keys.
STRANGERS_PER_SECOND = 50.0
BURST_SECONDS = 1.0
MOST_BUCKETS = 10_000
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_bearer = HTTPBearer(auto_error=False, description="A key: surefoot keys create NAME --scope enqueue --scope read")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking.

    Attributes:
        producer: What he asks by, bound to his tenant.
        key_id: None where no keys are wanted.
        name: Of his key.
    """

    producer: Producer
    tenant: str
    scopes: frozenset[Scope]
    key_id: str | None
    name: str

    @property
    def who(self) -> str:
        """How he is named in a job's history."""
        return self.name if self.key_id is None else f"{self.name[:200]} (key {self.key_id})"

    def via(self, address: str | None) -> str:
        """Return from where he comes, as it is put on record with what he does."""
        key = "api" if self.key_id is None else f"api key {self.key_id}"
        return f"{key} from {address or 'nowhere'}"


class Rates:
    """How often each may ask: a bucket that fills by the second and holds one second's worth. On the loop alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with full buckets."""
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def seconds_to_wait(self, name: str, per_second: float) -> float:
        """Take one request, and return 0; or leave it, and return the seconds until there is room for one."""
        now, most = self._clock(), max(1.0, per_second * BURST_SECONDS)
        left, at = self._buckets.pop(name, (most, now))
        left = min(most, left + (now - at) * per_second)
        wait = 0.0 if left >= 1 else (1 - left) / per_second
        self._buckets[name] = (left if wait else left - 1, now)  # at the end: the first is the longest unused
        if len(self._buckets) > MOST_BUCKETS:
            del self._buckets[next(iter(self._buckets))]
        return wait


class Door:
    """Lets callers in. One for each app."""

    def __init__(self, producer: Producer, *, api_keys: str) -> None:
        """Look nobody up yet; `is_open` is whether no keys are wanted."""
        self._producer, self.is_open = producer, api_keys != REQUIRED
        self._rates = Rates()
        self._of_tenants: dict[str, Producer] = {}

    async def caller(self, credentials: HTTPAuthorizationCredentials | None) -> Caller:
        """Return who is asking.

        Raises:
            Problem: If that is nobody who may, or he asks too often.
            LedgerUnavailable: If that cannot be told.
        """
        if self.is_open:
            return self.named("anybody", SCOPES)
        if credentials is None:
            raise _unauthenticated("no key came along")
        return self._admitted(await run_in_threadpool(self._producer.keys.identify, credentials.credentials))

    async def caller_of(self, key_id: str) -> Caller:
        """Return who has a key, for somebody who has shown it before; raises what `caller` does."""
        return self._admitted(await run_in_threadpool(self._producer.keys.active, key_id))

    def named(self, name: str, scopes: Collection[Scope]) -> Caller:
        """Return somebody who needs no key: he is of this process's own tenant."""
        return Caller(self._producer, self._producer.settings.tenant, frozenset(scopes), None, name)

    def _admitted(self, key: ApiKey | None) -> Caller:
        if key is None:
            self._count("strangers", STRANGERS_PER_SECOND)
            raise _unauthenticated("that key is not valid, or not any more")
        self._count(key.id, key.rate_per_second)
        return Caller(self._of(key), key.tenant, frozenset(key.scopes), key.id, key.name)

    def _of(self, key: ApiKey) -> Producer:
        found = self._of_tenants.get(key.tenant)
        if found is None:
            found = self._of_tenants[key.tenant] = self._producer.for_tenant(key.tenant)
        return found

    def _count(self, name: str, per_second: float) -> None:
        wait = self._rates.seconds_to_wait(name, per_second)
        if wait:
            headers = {"Retry-After": str(math.ceil(wait))}
            raise Problem("too-many-requests", f"more than {per_second:g} requests a second", headers=headers)


def needs(scope: Scope) -> Callable[..., Awaitable[Caller]]:
    """Return the dependency by which an endpoint has its caller, who must have this scope, or ``admin``."""

    async def caller(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> Caller:
        require_own_name(request)
        found = await request.app.state.door.caller(credentials)
        assert isinstance(found, Caller)  # noqa: S101  for the type checker: an app's state is anything
        request.state.caller = found
        act_as(found.who, found.via(request.client.host if request.client else None))
        if not found.scopes & {scope, "admin"}:
            raise Problem("forbidden", f"this takes a key with the scope {scope}", scope=scope)
        return found

    return caller


def require_own_name(request: Request) -> None:
    """Refuse a name that somebody else had resolve to this machine: his page would be taken for one of its own.

    Only where no keys are wanted: a key is nothing that such a page has.
    """
    if request.app.state.settings.api_keys == NONE_ON_LOOPBACK and request.url.hostname not in LOOPBACK:
        raise Problem("forbidden", "without keys the API answers to localhost alone", scope=None)


def _unauthenticated(detail: str) -> Problem:
    return Problem("unauthenticated", detail, headers={"WWW-Authenticate": 'Bearer realm="surefoot"'})


Enqueuer = Annotated[Caller, Depends(needs("enqueue"))]
Reader = Annotated[Caller, Depends(needs("read"))]
Approver = Annotated[Caller, Depends(needs("approve"))]
Operator = Annotated[Caller, Depends(needs("operate"))]
Admin = Annotated[Caller, Depends(needs("admin"))]

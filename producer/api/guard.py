"""What stands before every endpoint: bounds on bodies and on patience, safe headers, a log line, and counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from producer.api.log import log
from producer.api.metrics import Metrics
from producer.api.problems import Problem

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


class Guard:
    """An ASGI middleware, outermost."""

    def __init__(self, app: App, *, body_bytes: int, body_seconds: float, metrics: Metrics) -> None:
        """Let nothing larger than `body_bytes` in, nor anything that takes longer than `body_seconds` to come."""
        self._app, self._bytes, self._seconds, self._metrics = app, body_bytes, body_seconds, metrics

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle one request; anything else passes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(h for h in SAFE_HEADERS if h[0] not in given)]
            await send(message)

        try:
            await self._app(scope, await self._bounded(scope, receive), sending)
        except Problem as problem:  # before any endpoint was found
            await problem.answer()(scope, receive, sending)
        finally:
            self._note(scope, status, time.monotonic() - began)

    async def _bounded(self, scope: MutableMapping[str, Any], receive: Receive) -> Receive:
        if _content_length(scope) > self._bytes:
            raise self._too_large()
        body, over = bytearray(), False
        try:
            async with asyncio.timeout(self._seconds):
                while not over:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return _replaying(bytes(body), receive, gone=True)
                    body += message.get("body", b"")
                    over = not message.get("more_body", False)
                    if len(body) > self._bytes:
                        raise self._too_large()
        except TimeoutError:
            raise Problem("too-slow", f"the body did not come within {self._seconds:g} s") from None
        return _replaying(bytes(body), receive, gone=False)

    def _too_large(self) -> Problem:
        return Problem("too-large", f"the body has more than {self._bytes:,} bytes", limit=self._bytes)

    def _note(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "(none)")
        caller = scope.get("state", {}).get("caller")
        self._metrics.note(scope["method"], route, status, seconds)
        log.info(
            "api.request",
            method=scope["method"],
            route=route,
            status=status,
            ms=round(seconds * 1000, 3),
            tenant=getattr(caller, "tenant", None),
            key_id=getattr(caller, "key_id", None),
        )


def _replaying(body: bytes, receive: Receive, *, gone: bool) -> Receive:
    """Return what hands on a body that was read, and then whatever comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    if gone:
        messages = [{"type": "http.disconnect"}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _content_length(scope: MutableMapping[str, Any]) -> int:
    found = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(found) if found.isdigit() and len(found) < 20 else 0  # noqa: PLR2004  more digits than a size has

"""Unsafe actions that raise what a library raised, as an author does who catches nothing."""

from __future__ import annotations

import httpx

from tasks import Refused, action
from tests.unbroken import unbroken

unbroken("classified")
unbroken("overloaded")


def call(how: str) -> int:
    """Raise as a call would."""
    request = httpx.Request("POST", "http://127.0.0.1:1/")
    match how:
        case "nobody listens":
            httpx.post("http://127.0.0.1:1/", trust_env=False)
        case "no answer":
            raise httpx.ReadTimeout("the line went dead", request=request)
        case "refused":
            httpx.Response(404, request=request).raise_for_status()
        case "too many":
            httpx.Response(429, headers={"x-ratelimit-reset-requests": "1m0s"}, request=request).raise_for_status()
        case "overloaded":
            httpx.Response(503, headers={"retry-after": "60"}, request=request).raise_for_status()
    return 1


@action("classified.overloaded", effect="unsafe", one_call=True, dependency="overloaded")
def overloaded() -> int:
    """Make one call, of somebody who is too busy to say what he did."""
    return call("overloaded")


@action("classified.one_call", effect="unsafe", one_call=True, max_retries=1, retry_backoff=0.01)
def one_call(how: str) -> int:
    """Make one call."""
    return call(how)


@action("classified.two_calls", effect="unsafe", max_retries=1, retry_backoff=0.01)
def two_calls(how: str) -> int:
    """Make two, for all that anybody knows."""
    return call(how)


@action("classified.own", effect="unsafe", max_retries=1, classify={httpx.ConnectError: Refused})
def own(how: str) -> int:
    """Know better."""
    return call(how)

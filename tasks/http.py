"""``http.request``: one HTTP request, and an honest word on what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from typing_extensions import TypedDict

from producer.canonical import DEPTH_LIMIT, parse_json, shown
from producer.errors import InvalidRequest, SettingsError
from tasks import Context, EffectClass, action
from tasks._classify import NOT_SET, error_of, meaning_of, meaning_of_status, unsent
from tasks._clients import PerLoop
from tasks._hosts import http_hosts

Method = Literal["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"]

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 9.2.1
IDEMPOTENT = frozenset({"PUT", "DELETE"})  # RFC 9110 9.2.2
HIGHEST_PORT = 0xFFFF
BODY_LIMIT = 160 * 1024  # written as JSON, where one byte may take six, it still fits into the ledger
# What a proxy on the way may go by instead of the URL, or take for the end of a request and the beginning of another.
MISLEADING = frozenset({"host", "transfer-encoding", "content-length"})
KEPT_HEADERS = ("content-type", "location", "etag", "last-modified", "x-request-id", "idempotent-replayed")


class HttpResponse(TypedDict):
    """What came back. `json` is the parsed body where its type says JSON; `text` is the body otherwise.

    A body over 160 KiB is cut off there, `truncated`, and not parsed: the answer is known all the same.
    """

    status: int
    headers: dict[str, str]
    json: Any
    text: str | None
    truncated: bool


# One client serves everybody's jobs, so it keeps nobody's cookies. Its pool has no line: a request that is cancelled
# while it stands in one may leave its connection unopened and taken for good, until none is left (httpcore 1.0.9). How
# many there are at once, the worker's slots say.
_clients = PerLoop(
    lambda: httpx.AsyncClient(
        follow_redirects=False,
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        trust_env=True,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
    )
)


def effect_of(params: Mapping[str, Any]) -> EffectClass:
    """Say what repeating the request would do, by its method and whether the other side is given a key."""
    if params["method"] in SAFE:
        return EffectClass.PURE
    if params["method"] in IDEMPOTENT:
        return EffectClass.IDEMPOTENT
    return EffectClass.KEYED if params.get("key_header") else EffectClass.UNSAFE


def host_of(params: Mapping[str, Any]) -> str:
    """Say whom a 429 holds: one host, not everybody that is reached by HTTP."""
    return f"http {urlsplit(params['url']).hostname}"


@action("http.request", effect=effect_of, dependency=host_of, key_ttl=86_400, timeout=30)
async def request(
    method: Method,
    url: str,
    ctx: Context,
    headers: dict[str, str] | None = None,
    json: Any = None,
    text: str | None = None,
    key_header: str | None = None,
    timeout: float | None = None,  # noqa: ASYNC109  handed to httpx, which knows what had happened by then
) -> HttpResponse:
    """Send one HTTP request and return the answer if it is 2xx or 3xx; redirects are not followed.

    Args:
        method: Decides the effect class: GET is pure, PUT idempotent; POST is unsafe unless a key goes along.
        url: Absolute, http or https; of one of the hosts in ``SUREFOOT_HTTP_HOSTS``, where there are any.
        ctx: The attempt.
        headers: Sent along; the trace is added. No ``Host`` where ``SUREFOOT_HTTP_HOSTS`` says who may be called.
        json: The body, as JSON.
        text: The body, as it stands; not together with `json`.
        key_header: Header in which the other side takes an idempotency key (``Idempotency-Key``). It must remember
            keys for a day at least.
        timeout: Seconds for this request; None, or more than the attempt has left, is what it has left.

    Raises:
        Retry: If the connection was refused: nothing happened.
        Hold: If the other side asks for patience (429, 529, or 503 with Retry-After).
        Refused: If it said no (4xx), or the request cannot be sent at all.
        Unknown: If no answer settles what happened.
    """
    sent = {**(headers or {}), **ctx.headers()} | ({key_header: ctx.downstream_key()} if key_header else {})
    body = {"json": json} if text is None else {"content": text.encode()}
    _check(url, sent)
    seconds = min(timeout or ctx.seconds_left, ctx.seconds_left)
    try:
        async with _clients.get().stream(
            method, url, headers=sent, timeout=seconds, **(body if json is not None or text else {})
        ) as response:
            content = await _read(response)
    except ValueError as error:  # httpx checks headers and body before it connects
        raise unsent(f"the request cannot be sent: {error}") from error
    except httpx.HTTPError as error:
        raise error_of(meaning_of(error), f"{type(error).__name__}: {error}") from error
    _raise_for(response)
    return _answer(response, content)


def _check(url: str, headers: Mapping[str, str]) -> None:
    """Refuse what cannot be sent, before anything is: a refusal is certain, an error from the depths is not."""
    try:
        hosts, read = http_hosts(), httpx.URL(url)
    except SettingsError as error:
        raise error_of(NOT_SET, f"{type(error).__name__}: {error}") from error
    except httpx.InvalidURL as error:
        raise unsent(f"the URL cannot be read: {error}") from error
    if read.scheme not in ("http", "https") or not read.host or not _may_be(read.port):
        raise unsent("the URL must be absolute, begin with http:// or https:// and name a host")
    if not hosts.include(read):
        raise unsent(f"{shown(read.host)} is none of the hosts that may be called, which SUREFOOT_HTTP_HOSTS names")
    if hosts.names and (misleading := MISLEADING.intersection(map(str.lower, headers))):
        raise unsent(f"{min(misleading)} may have another answer than the one that SUREFOOT_HTTP_HOSTS names")


def _may_be(port: int | None) -> bool:
    return port is None or 0 < port <= HIGHEST_PORT  # None is the scheme's own


async def _read(response: httpx.Response) -> bytes:
    """Return the body, or a little more of it than may be kept."""
    content = bytearray()
    async for chunk in response.aiter_bytes(BODY_LIMIT):
        content += chunk
        if len(content) > BODY_LIMIT:
            break
    return bytes(content)


def _raise_for(response: httpx.Response) -> None:
    """Turn an answer that is not a success into what it means for the job."""
    status = response.status_code
    if status < httpx.codes.BAD_REQUEST:
        return
    message = f"{response.request.method} {response.request.url.host} answered {status} {response.reason_phrase}"
    raise error_of(meaning_of_status(status, response.headers), message)


def _answer(response: httpx.Response, content: bytes) -> HttpResponse:
    kept = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    answer = HttpResponse(status=response.status_code, headers=kept, json=None, text=None, truncated=False)
    if len(content) > BODY_LIMIT:
        answer["text"], answer["truncated"] = _decoded(response, content[:BODY_LIMIT]), True
        return answer
    if "json" in response.headers.get("content-type", "") and content:
        # Says JSON and is not, or not such as the ledger holds: handed over as the text that it is.
        with suppress(InvalidRequest):
            answer["json"] = parse_json(content, where="result.json", depth_limit=DEPTH_LIMIT - 1)
            return answer
    answer["text"] = _decoded(response, content)
    return answer


def _decoded(response: httpx.Response, content: bytes) -> str:
    try:
        text = content.decode(response.encoding or "utf-8", errors="replace")
    except (LookupError, UnicodeError):  # it names an encoding that is none, or none for text
        text = content.decode(errors="replace")
    return text.replace("\x00", "\ufffd")

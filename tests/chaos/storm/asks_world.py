"""What every action of a storm does: one request to the effect server, and an honest word on what came of it."""

from __future__ import annotations

import os
import ssl
from functools import cache
from typing import Any

import httpx
from pydantic import BaseModel

from producer.canonical import canonical_json
from tasks import Context, Hold, Retry, Unknown
from tasks._clients import PerLoop

WORLD = "CHAOS_WORLD"
# Also the tenant, and the run's part of the effect server.
RUN = "storm"
BEFORE_THE_REQUEST = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

# The effect server speaks plain HTTP. A client without this would read every certificate of the machine.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
# Before each request a pool asks every idle connection whether it stands; a storm has better things to do.
# And none may wait for another's: cancelled there, it would leave a connection taken for good; see tasks/http.py.
FEW = httpx.Limits(max_connections=None, max_keepalive_connections=5)
_clients = PerLoop(lambda: httpx.AsyncClient(trust_env=False, verify=NO_TLS, limits=FEW))


class Receipt(BaseModel):
    """What the effect server answers."""

    receipt: str


async def ask(mode: str, ctx: Context, params: dict[str, Any]) -> Receipt:
    """Have the effect; `params` are all of the job's."""
    try:
        answer = await _clients.get().post(**_request(mode, ctx, params))
    except BEFORE_THE_REQUEST as error:
        raise Retry(f"nobody is there: {error!r}") from error
    except httpx.HTTPError as error:
        raise Unknown(f"no answer: {error!r}") from error
    return _receipt(answer)


def ask_from_a_thread(mode: str, ctx: Context, params: dict[str, Any]) -> Receipt:
    """Do the same in a sync action."""
    try:
        answer = _client_of_threads().post(**_request(mode, ctx, params))
    except BEFORE_THE_REQUEST as error:
        raise Retry(f"nobody is there: {error!r}") from error
    except httpx.HTTPError as error:
        raise Unknown(f"no answer: {error!r}") from error
    return _receipt(answer)


@cache
def _client_of_threads() -> httpx.Client:
    return httpx.Client(trust_env=False, verify=NO_TLS, limits=FEW)


async def look_up(action: str, ctx: Context) -> Receipt | None:
    """Ask whether the job's effect is in the books; None is that it is not."""
    url = f"{os.environ[WORLD]}/{RUN}/verifiable/{action}"
    answer = await _clients.get().get(url, headers=_headers(ctx), timeout=ctx.seconds_left)
    found = answer.raise_for_status().json()
    return Receipt.model_validate(found["result"]) if found["happened"] else None


def _request(mode: str, ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    headers = _headers(ctx) | {"X-Attempt": str(ctx.attempt)}
    if mode == "keyed":
        headers["Idempotency-Key"] = ctx.downstream_key()
    return {
        "url": f"{os.environ[WORLD]}/{RUN}/{mode}/{ctx.action}",
        "content": canonical_json(params, where="params"),
        "headers": headers,
        "timeout": ctx.seconds_left,
    }


def _headers(ctx: Context) -> dict[str, str]:
    return {"X-Ref": str(ctx.job_id), "X-Token": str(os.getpid())}


def _receipt(answer: httpx.Response) -> Receipt:
    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise Hold("it asks for patience, and has done nothing", after=PATIENCE_SECONDS)
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        raise Retry("it has done nothing, it says")
    return Receipt.model_validate_json(answer.content)


PATIENCE_SECONDS = 1.0

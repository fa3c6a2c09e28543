"""The actions of the chaos tests: one for each effect class, each with one request to the effect server."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Any

import httpx
from pydantic import BaseModel

from producer.canonical import canonical_json
from tasks import Context, DidNotHappen, Happened, Hold, Refused, Retry, Unknown, action
from tasks._verify import Answer
from tests.unbroken import unbroken

unbroken("chaos")

WORLD = "CHAOS_WORLD"
TIMEOUT_SECONDS = 30.0
# Long enough for a death to fall into it.
WAIT_SECONDS = 1.0
HOLD_SECONDS = 1.0
# A process that stood still for longer than its lease sends what it has to send within this, twice over.
QUIET_SECONDS = 4.0
QUIET: dict[str, Any] = {"verify_after": QUIET_SECONDS, "verify_every": 0.3}
# The effect server speaks plain HTTP. A client without this would read every certificate of the machine, each time.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
BACKOFF: dict[str, Any] = {"max_retries": 3, "retry_backoff": 0.3, "retry_jitter": False, "timeout": TIMEOUT_SECONDS}


class Receipt(BaseModel):
    """What the effect server answers."""

    receipt: str


@action("chaos.pure", effect="pure", **BACKOFF)
async def pure(run: str, wait: bool, ctx: Context) -> Receipt:  # noqa: FBT001  actions get their params by name
    """Read something."""
    return await _ask("pure", run, wait, ctx)


@action("chaos.idempotent", effect="idempotent", **BACKOFF)
async def idempotent(run: str, wait: bool, ctx: Context) -> Receipt:  # noqa: FBT001  as above
    """Put a state."""
    return await _ask("idempotent", run, wait, ctx)


@action("chaos.keyed", effect="keyed", key_ttl=3600.0, **BACKOFF)
async def keyed(run: str, wait: bool, ctx: Context) -> Receipt:  # noqa: FBT001  as above
    """Do what is done once for each key."""
    return await _ask("keyed", run, wait, ctx)


async def look_up(run: str, ctx: Context) -> Answer:
    """Ask the effect server whether the job's effect is in its books."""
    async with httpx.AsyncClient(timeout=ctx.seconds_left, verify=NO_TLS) as client:
        url = f"{os.environ[WORLD]}/{run}/verifiable/chaos.verifiable"
        answer = await client.get(url, headers={"X-Ref": str(ctx.job_id), "X-Token": str(os.getpid())})
    found = answer.raise_for_status().json()
    return Happened(found["result"]) if found["happened"] else DidNotHappen()


@action("chaos.verifiable", effect="verifiable", verify=look_up, **QUIET, **BACKOFF | {"timeout": QUIET_SECONDS})
async def verifiable(run: str, wait: bool, ctx: Context) -> Receipt:  # noqa: FBT001  as above
    """Do what can be looked up."""
    return await _ask("verifiable", run, wait, ctx)


@action("chaos.unsafe", effect="unsafe", **BACKOFF)
async def unsafe(run: str, wait: bool, ctx: Context) -> Receipt:  # noqa: FBT001  as above
    """Do what nobody can take back or look up."""
    return await _ask("unsafe", run, wait, ctx)


async def _ask(mode: str, run: str, wait: bool, ctx: Context) -> Receipt:  # noqa: FBT001  as above
    if wait and ctx.attempt == 1:
        raise Retry("not yet", after=WAIT_SECONDS)
    return await ask(mode, {"run": run, "wait": wait}, ctx)


async def ask(mode: str, params: Mapping[str, Any], ctx: Context) -> Receipt:
    """Ask the effect server for the effect of a job with these params, which name the run."""
    headers = {"X-Ref": str(ctx.job_id), "X-Attempt": str(ctx.attempt), "X-Token": str(os.getpid())}
    if mode == "keyed":
        headers["Idempotency-Key"] = ctx.downstream_key()
    body = canonical_json(params, where="params")
    try:
        # A client of its own: what one cell leaves behind must not meet the next one's request.
        async with httpx.AsyncClient(timeout=ctx.seconds_left, verify=NO_TLS) as client:
            url = f"{os.environ[WORLD]}/{params['run']}/{mode}/{ctx.action}"
            answer = await client.post(url, content=body, headers=headers)
            answer.raise_for_status()
    except httpx.ConnectError as error:
        raise Retry(str(error)) from error
    except httpx.HTTPStatusError as error:
        raise _refusal(error) from error
    except httpx.HTTPError as error:
        raise Unknown(f"no answer: {error!r}") from error
    return Receipt.model_validate_json(answer.content)


def _refusal(error: httpx.HTTPStatusError) -> Exception:
    status = error.response.status_code
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return Hold(str(error), after=HOLD_SECONDS)
    return Refused(str(error)) if status < httpx.codes.INTERNAL_SERVER_ERROR else Unknown(str(error))

"""The actions of a storm that are the same in both builds of a worker; `build_now` and `build_next` add the others."""

from __future__ import annotations

from typing import Any

from tasks import Context, Dependency, DidNotHappen, Happened, action
from tasks._verify import Answer
from tests.chaos.storm.asks_world import Receipt, ask, ask_from_a_thread, look_up

TIMEOUT_SECONDS = 10.0
# A world that is away for seconds must not end a job.
RETRIES: dict[str, Any] = {"max_retries": 12, "retry_backoff": 0.3, "retry_backoff_max": 4.0}
# It breaks whenever the world dies, and is soon whole again: a storm must not spend its time waiting for it. Who waited
# is let go three times as fast as others come: for a third of a storm the world is away, and who cannot make up for
# that meanwhile falls behind further and further.
THE_WORLD = Dependency(
    name="world",
    recovery_seconds=1.5,
    recovery_max_seconds=3.0,
    release_per_second=150.0,
    retry_share=0.5,
    retries_per_second=20.0,
)
BACKOFF: dict[str, Any] = {**RETRIES, "timeout": TIMEOUT_SECONDS, "dependency": THE_WORLD}
# How long a process that a storm stops may stand still, and then send what it had to send.
QUIET: dict[str, Any] = {"verify_after": 12.0, "verify_every": 1.0}
KEY_SECONDS = 3600.0
# For twice as many in a second as are asked for, where one takes a second and a half with its ring: such a line has to
# be worked off between two outages.
NARROW = 8


@action("storm.pure", effect="pure", **BACKOFF)
async def pure(n: int, ctx: Context) -> Receipt:
    """Read something."""
    return await ask("pure", ctx, {"n": n})


@action("storm.idempotent", effect="idempotent", **BACKOFF)
async def idempotent(n: int, ctx: Context) -> Receipt:
    """Put a state."""
    return await ask("idempotent", ctx, {"n": n})


async def found(ctx: Context) -> Answer:
    """Look up whether the job's effect has happened."""
    receipt = await look_up(ctx.action, ctx)
    return DidNotHappen() if receipt is None else Happened(receipt)


@action("storm.verifiable", effect="verifiable", verify=found, **QUIET, **BACKOFF)
async def verifiable(n: int, ctx: Context) -> Receipt:
    """Do what can be looked up."""
    return await ask("verifiable", ctx, {"n": n})


@action("storm.unsafe", effect="unsafe", **BACKOFF)
async def unsafe(n: int, ctx: Context) -> Receipt:
    """Do what nobody can take back or look up."""
    return await ask("unsafe", ctx, {"n": n})


@action("storm.sync", effect="keyed", key_ttl=KEY_SECONDS, **BACKOFF)
def sync(n: int, ctx: Context) -> Receipt:
    """Do what is done once for each key, in a thread."""
    return ask_from_a_thread("keyed", ctx, {"n": n})


@action("storm.narrow", effect="idempotent", fleet_concurrency=NARROW, **BACKOFF)
async def narrow(n: int, ctx: Context) -> Receipt:
    """Put a state, a few at a time in the whole fleet."""
    return await ask("idempotent", ctx, {"n": n})


@action("storm.parent", effect="pure", **BACKOFF)
async def parent(n: int, children: int, ctx: Context) -> Receipt:
    """Read something, and have others follow."""
    receipt = await ask("pure", ctx, {"n": n, "children": children})
    for child in range(children):
        ctx.enqueue("storm.child", {"n": n, "child": child})
    return receipt


@action("storm.child", effect="keyed", key_ttl=KEY_SECONDS, **BACKOFF)
async def child(n: int, child: int, ctx: Context) -> Receipt:
    """Follow."""
    return await ask("keyed", ctx, {"n": n, "child": child})


@action("storm.talk", effect="keyed", key_ttl=KEY_SECONDS, conversation="talk", **BACKOFF)
async def talk(talk: str, n: int, says: int, ctx: Context) -> Receipt:
    """Take a turn: say something, and what it was answered; `says` is how many messages that are, for the checker."""
    receipt = await ask("keyed", ctx, {"talk": talk, "n": n, "says": says})
    if ctx.conversation is None:
        raise ValueError(f"this is no turn of {talk}")
    ctx.conversation.append("user", f"{n}")
    ctx.conversation.append("assistant", receipt.receipt)
    return receipt


@action("storm.tick", effect="idempotent", **BACKOFF)
async def tick(name: str, ctx: Context) -> Receipt:
    """Put a state, at each tick of a schedule."""
    return await ask("idempotent", ctx, {"name": name})

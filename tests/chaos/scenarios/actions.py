"""The actions of the scenarios. Each has one effect, under a key, at the effect server."""

from __future__ import annotations

from decimal import Decimal

from tasks import Asked, Context, Cost, Said, action, budget, policy, require_approval
from tests.chaos.actions import BACKOFF, Receipt, ask
from tests.chaos.approver import APPROVER

KEY_TTL_SECONDS = 3600.0
# More than all attempts of a scenario together: who is short of it waits for longer than a scenario lasts.
budget("chaos", per="tenant", actions=["chaos.budgeted", "chaos.approved_budgeted"], usd=1_000, calls=1_000)


@policy("chaos.approved*")
def ask_somebody(asked: Asked) -> Said:
    """Have one person approve whatever it is."""
    return require_approval(reason="it is chaos", approvers=[APPROVER], expires_in=asked.params["within"])


@action("chaos.answered", effect="keyed", key_ttl=KEY_TTL_SECONDS, **BACKOFF)
async def answered(run: str, answers: list[int], ctx: Context) -> Receipt:
    """Do what the other side refuses with these statuses first, one a request."""
    return await ask("keyed", {"run": run, "answers": answers}, ctx)


@action("chaos.parent", effect="keyed", key_ttl=KEY_TTL_SECONDS, **BACKOFF)
async def parent(run: str, children: int, ctx: Context) -> Receipt:
    """Do something that so many other jobs follow from."""
    receipt = await ask("keyed", {"run": run, "children": children}, ctx)
    for _ in range(children):
        ctx.enqueue("chaos.keyed", {"run": run, "wait": False})
    return receipt


@action("chaos.turn", effect="keyed", key_ttl=KEY_TTL_SECONDS, conversation="conversation", **BACKOFF)
async def turn(run: str, conversation: str, says: int, ctx: Context) -> Receipt:
    """Do something in a conversation, and say so many messages."""
    receipt = await ask("keyed", {"run": run, "conversation": conversation, "says": says}, ctx)
    assert ctx.conversation is not None
    for number in range(says):
        ctx.conversation.append("assistant", f"{ctx.job_id} {number}")
    return receipt


@action("chaos.approved", effect="keyed", key_ttl=KEY_TTL_SECONDS, **BACKOFF)
async def approved(run: str, within: float, ctx: Context) -> Receipt:
    """Do what somebody has to approve within so many seconds."""
    return await ask("keyed", {"run": run, "within": within}, ctx)


@action("chaos.budgeted", effect="keyed", key_ttl=KEY_TTL_SECONDS, cost=Cost(usd="0.25"), **BACKOFF)
async def budgeted(run: str, ctx: Context) -> Receipt:
    """Do what costs less than it reserves."""
    receipt = await ask("keyed", {"run": run}, ctx)
    ctx.used(cost_usd=Decimal("0.1"))
    return receipt


@action("chaos.approved_budgeted", effect="keyed", key_ttl=KEY_TTL_SECONDS, cost=Cost(usd="0.25"), **BACKOFF)
async def approved_budgeted(run: str, within: float, ctx: Context) -> Receipt:
    """Do what somebody has to approve, and costs all that it reserves."""
    return await ask("keyed", {"run": run, "within": within}, ctx)

"""A user's actions as one build of workers has them. Loaded by its name alone, over either Surefoot."""

from __future__ import annotations

from rolled_notes import note, opened

from tasks import Context, action


@action("rolled.same", effect="unsafe", timeout=600.0)
async def same(log: str, ctx: Context, gate: str = "/") -> str:
    """Do what both builds do."""
    note(ctx, log, "same")
    await opened(gate)
    return "same"


@action("rolled.changed", effect="unsafe", version=1)
async def changed(log: str, amount: int, ctx: Context) -> str:
    """Pay so many cents."""
    note(ctx, log, f"{amount} cents")
    return f"{amount} cents"


@action("rolled.removed", effect="unsafe")
async def removed(log: str, ctx: Context) -> str:
    """Do what the next build cannot."""
    note(ctx, log, "removed")
    return "removed"

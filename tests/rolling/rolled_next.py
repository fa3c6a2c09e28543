"""The same user's actions in the next build: one means something else, one is new, and one is gone."""

from __future__ import annotations

from rolled_notes import note, opened

from tasks import Context, action


@action("rolled.same", effect="unsafe", timeout=600.0)
async def same(log: str, ctx: Context, gate: str = "/") -> str:
    """Do what both builds do."""
    note(ctx, log, "same")
    await opened(gate)
    return "same"


@action("rolled.changed", effect="unsafe", version=2)
async def changed(log: str, amount: int, ctx: Context) -> str:
    """Pay so many euros."""
    note(ctx, log, f"{amount} euros")
    return f"{amount} euros"


@action("rolled.added", effect="unsafe")
async def added(log: str, ctx: Context) -> str:
    """Do what the build before cannot."""
    note(ctx, log, "added")
    return "added"

"""The no-op as Surefoot's actions, in the two effect classes whose intents cost differently.

A pure action's intent does not wait for the disk; any other's must be there before the effect.
"""

from __future__ import annotations

from tasks import action


@action("bench.pure", effect="pure")
def pure(number: int) -> int:
    """Return the number."""
    return number


@action("bench.unsafe", effect="unsafe")
def unsafe(number: int) -> int:
    """Return the number, as an action would whose effect must not be repeated."""
    return number

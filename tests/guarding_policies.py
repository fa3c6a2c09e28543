"""The policy that guards `tests.guarded_actions`, in a module of its own."""

from __future__ import annotations

import os

from tasks import Asked, Said, allow, policy


@policy("guarded.*", version=int(os.environ.get("TEST_GUARD_VERSION", "1")))
def guard(asked: Asked) -> Said:
    """Have nothing against it, which is on record."""
    return allow(f"{asked.action} is fine")

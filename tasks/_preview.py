"""Saying what an action will change, before anybody lets it: for the people who are asked to approve it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tasks._hook import Hook, read_hook

PREVIEW_SECONDS = 10.0


def make_preview(name: str, action: Callable[..., Any], function: Any) -> Hook | None:
    """Read an action's preview, which has no effect and returns any JSON; None where there is none.

    Raises:
        InvalidAction: Saying of which action, what is wrong, and what to write instead.
    """
    if function is None:
        return None
    return read_hook(name, "preview", action, function, must_be="a function of the params; write it with def")

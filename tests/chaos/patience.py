"""Waiting for a condition, so seldom that twenty waiting cells leave the processors to those who work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

LOOK_SECONDS = 0.04

T = TypeVar("T")


class NotReached(Exception):
    """What a cell waits for does not come: before its death it says nothing then, and after it something is wrong."""


def until(condition: Callable[[], T], *, seconds: float, what: str) -> T:
    """Return the first true value of `condition`.

    Raises:
        NotReached: If there is none in time; it names `what` was waited for.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise NotReached(f"{what} did not come to be in {seconds:g} s")
        time.sleep(LOOK_SECONDS)
    return value

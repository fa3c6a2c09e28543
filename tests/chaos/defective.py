"""How a process of the chaos tests learns what is wrong with it: a defect of the product, or a clock that is wrong."""

from __future__ import annotations

import time

# The name of a defect of `mutants`; seconds by which the process's wall clock is ahead.
MUTANT, CLOCK = "CHAOS_MUTANT", "CHAOS_CLOCK_AHEAD"


def set_ahead(seconds: float) -> None:
    """Have this process's wall clock be ahead for all code that asks `time.time` from now on."""
    right = time.time
    time.time = lambda: right() + seconds

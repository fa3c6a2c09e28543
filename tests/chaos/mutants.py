"""Deliberate defects of the product, injected into the workers as the parking places are."""

from __future__ import annotations

MUTANT = "CHAOS_MUTANT"


def mutate(name: str) -> None:
    """Break the product in the named way."""
    raise KeyError(name)

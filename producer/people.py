"""Names of people and agents, as they are compared: one person must not pass for two by how a name is written."""

from __future__ import annotations

from unicodedata import normalize


def key_of(name: str) -> str:
    """Return what two spellings of one name have in common: no case, no width, no spaces around it."""
    return normalize("NFKC", name).strip().casefold()


def is_one_of(name: str, names: list[str] | tuple[str, ...]) -> bool:
    """Whether a name is among others, however it is written."""
    return key_of(name) in {key_of(each) for each in names}

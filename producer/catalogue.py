"""The actions that workers have published, as one producer process remembers them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping

from producer.errors import InvalidRequest
from producer.ledger.reads import PublishedAction
from producer.schema import unknown_action

# A worker that starts publishes its actions; a producer learns of them within this time without being told.
FRESH_SECONDS = 30.0
# What is refused by what we remember is looked at again by what there is, but not at every bad request.
ASK_AGAIN_SECONDS = 1.0

Actions = Mapping[str, PublishedAction]


class Catalogue:
    """Reads the published actions when it has to. Thread-safe."""

    def __init__(self, read: Callable[[], Actions]) -> None:
        """Read nothing yet."""
        self._read = read
        self._known: Actions = {}
        self._read_at = float("-inf")
        self._lock = threading.Lock()

    def read(self) -> Actions:
        """Return every action by name, read now."""
        with self._lock:
            self._known, self._read_at = self._read(), time.monotonic()
            return self._known

    def ring_size(self, action: str) -> int:
        """Return how many jobs of an action one ring may name; 1 where its workers did not say."""
        known = self._known.get(action)
        return int(known.policy.get("ring_size", 1)) if known else 1

    def looks(self) -> Iterator[Actions]:
        """Yield what is remembered, and then, for whom that did not satisfy, what there is now."""
        age = time.monotonic() - self._read_at
        if age < FRESH_SECONDS:
            yield self._known
        if age >= ASK_AGAIN_SECONDS:
            yield self.read()


def find(known: Actions, name: object) -> PublishedAction:
    """Return the action of this name.

    Raises:
        InvalidRequest: If `name` is no text.
        UnknownAction: If nobody has published it; says what was probably meant.
    """
    if not isinstance(name, str):
        raise InvalidRequest("action", f"must be text, not {type(name).__name__}")
    if name not in known:
        raise unknown_action(name, known)
    return known[name]

"""The fingerprint of a request, made as the promise has it, and not by the product's own code."""

from __future__ import annotations

import hashlib

from producer.canonical import canonical_json
from tests.chaos.storm.load import Wanted

# Of which there are two versions at a time: which of them a producer knows by then, it does not say.
VERSIONED = "storm.versioned"


def fingerprint(wanted: Wanted) -> str | None:
    """Return the request's fingerprint; None where its action's version is not known."""
    if wanted.action == VERSIONED:
        return None
    return hashlib.sha256(f"1\n{canonical_json(wanted.params, where='params')}".encode()).hexdigest()

"""The header ``Idempotency-Key``, as the IETF's draft has it: a string of the structured fields, in quotes.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/ ; many clients leave the quotes out, so a
key without them is taken as it stands.
"""

from __future__ import annotations

import re

from producer.api.problems import Problem

# RFC 8941 3.3.3: visible ASCII and space; a quote and a backslash are escaped. Whether a key may hold a space is said
# where all keys are checked.
_QUOTED = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_ESCAPED = re.compile(r'\\(["\\])')


def idempotency_key(header: str | None, *, derive: bool) -> str | None:
    """Return the key that a request names; None where one is to be derived.

    Raises:
        Problem: If it is missing, or is no such string.
    """
    if header is None:
        if derive:
            return None
        raise Problem(
            "idempotency-key-missing",
            "send Idempotency-Key, the same for each repeat of one request; or have one derived: ?derive_key=true",
        )
    if not header.startswith('"'):
        return header
    found = _QUOTED.fullmatch(header)
    if found is None:
        problem = "is no string in quotes"
        raise Problem("invalid-request", f"Idempotency-Key: {problem}", where="Idempotency-Key", problem=problem)
    return _ESCAPED.sub(r"\1", found[1])

"""How what a statement takes is written: one JSON text for all of its rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Made once: json.dumps would make an encoder for each call.
as_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def with_digest(data: Mapping[str, Any], result: str | None) -> Mapping[str, Any]:
    """Return what an event says, and the digest of the result that came with it; None where none did.

    So that a result that was changed since shows, and one that was erased leaves its digest.
    """
    return data if result is None else {**data, "result_sha256": hashlib.sha256(result.encode()).hexdigest()}

"""Anchors: what is exported of a seal, to be kept where nobody who can change the ledger can change it.

A line of JSON each: ``{"seal": 7, "at": "…", "hash": "…", "key_id": "…", "signature": "…"}``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from producer.errors import InvalidRequest
from producer.ledger.seals import HASH_BYTES, Seal


def anchor_of(seal: Seal) -> dict[str, Any]:
    """Return what is exported of a seal, as plain JSON."""
    return {
        "seal": seal.n,
        "at": seal.at.isoformat(),
        "hash": seal.hash.hex(),
        "key_id": seal.key_id,
        "signature": None if seal.signature is None else seal.signature.hex(),
    }


def read_anchors(path: Path) -> list[dict[str, Any]]:
    """Read exported anchors, a line each.

    Raises:
        InvalidRequest: If a line is none.
    """
    found = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(_checked(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidRequest("anchors", f"line {number} is no anchor") from error
    return found


def _checked(anchor: dict[str, Any]) -> dict[str, Any]:
    bytes.fromhex(anchor.get("signature") or "")
    if type(anchor["seal"]) is not int or len(bytes.fromhex(anchor["hash"])) != HASH_BYTES:
        raise ValueError
    return anchor

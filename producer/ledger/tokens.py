"""The tokens of links by which a person decides: their hashes, until when they are good, and when they were used."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.errors import TokenRefused

ADD = text("""
INSERT INTO approval_tokens (hash, approval_id, person, verdict, expires_at)
SELECT :hash, p.id, :person, :verdict, least(clock_timestamp() + make_interval(secs => :seconds), p.expires_at)
FROM approvals p WHERE p.id = :approval_id AND p.tenant = :tenant
RETURNING expires_at
""")
# The row is locked: of two that use it at once the second finds it used.
USE = text("""
UPDATE approval_tokens t SET used_at = clock_timestamp() FROM approvals p
WHERE t.hash = :hash AND p.id = t.approval_id AND p.tenant = :tenant AND t.used_at IS NULL
  AND t.expires_at > clock_timestamp()
RETURNING t.approval_id, t.person, t.verdict, encode(p.digest, 'hex') AS digest
""")
STANDING = text("""
SELECT t.approval_id, t.person, t.verdict, t.used_at, t.expires_at <= clock_timestamp() AS over FROM approval_tokens t
JOIN approvals p ON p.id = t.approval_id WHERE t.hash = :hash AND p.tenant = :tenant
""")


def add_token(
    connection: Connection,
    tenant: str,
    approval_id: UUID,
    *,
    token_hash: bytes,
    person: str,
    verdict: str,
    seconds: float,
) -> bool:
    """Keep the hash of a token; return whether there is such an approval."""
    asked = {"hash": token_hash, "approval_id": approval_id, "person": person, "verdict": verdict, "seconds": seconds}
    return connection.execute(ADD, asked | {"tenant": tenant}).one_or_none() is not None


def use_token(connection: Connection, tenant: str, token_hash: bytes) -> Any:
    """Use a token up, and return whose word it is on what: ``approval_id``, ``person``, ``verdict``, ``digest``.

    In a transaction with that word, which takes the use back where the word is refused.

    Raises:
        TokenRefused: If there is no such token, it was used, or its time is over.
    """
    row = connection.execute(USE, {"hash": token_hash, "tenant": tenant}).one_or_none()
    if row is not None:
        return row
    found = connection.execute(STANDING, {"hash": token_hash, "tenant": tenant}).one_or_none()
    if found is None:
        raise TokenRefused("there is no such token")
    raise TokenRefused("the token was used before" if found.used_at is not None else "the token's time is over")


def read_token(connection: Connection, tenant: str, token_hash: bytes) -> Any:
    """Return what a token is for, without using it; None where there is none that is good."""
    found = connection.execute(STANDING, {"hash": token_hash, "tenant": tenant}).one_or_none()
    return None if found is None or found.used_at is not None or found.over else found

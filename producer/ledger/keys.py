"""The keys by which services and people come in over HTTP: rows that hold a hash, never the key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.ledger.prepared import Prepared

Scope = Literal["enqueue", "read", "approve", "operate", "admin"]

COLUMNS = (
    "id, tenant, name, scopes, rate_per_second, created_at, created_by, expires_at, revoked_at, revoked_by,"
    " CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= clock_timestamp() THEN 'expired'"
    " ELSE 'active' END AS standing"
)

# Asked for each request that comes in, so that a key that was revoked is refused from then on.
KEY_BY_ID = Prepared("key_by_id", f"SELECT {COLUMNS}, secret_hash FROM api_keys WHERE id = :id", id="text")
ADD = text(f"""
INSERT INTO api_keys (id, tenant, name, scopes, rate_per_second, secret_hash, created_by, expires_at)
VALUES (:id, :tenant, :name, CAST(:scopes AS text[]), :rate_per_second, :secret_hash, :who,
        clock_timestamp() + make_interval(secs => CAST(:seconds AS double precision)))
RETURNING {COLUMNS}
""")
KEYS_OF = text(f"SELECT {COLUMNS} FROM api_keys WHERE tenant = :tenant ORDER BY created_at, id")
# A key that goes at once stays on record. One that was revoked for later may still be revoked for sooner.
REVOKE = text(f"""
UPDATE api_keys SET revoked_by = coalesce(revoked_by, :who),
  revoked_at = CASE WHEN CAST(:seconds AS double precision) <= 0 THEN coalesce(revoked_at, clock_timestamp()) END,
  expires_at = CASE WHEN CAST(:seconds AS double precision) <= 0 THEN expires_at
                    ELSE least(expires_at, clock_timestamp() + make_interval(secs => :seconds)) END
WHERE id = :id AND tenant = :tenant AND revoked_at IS NULL
RETURNING {COLUMNS}
""")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without what only its holder knows.

    Attributes:
        id: The key's first part, which may be shown and logged.
        tenant: Whose jobs it is for.
        name: Who or what has it.
        scopes: What it may do.
        rate_per_second: Requests that one API process takes of it in a second.
        expires_at: None for one that does not end by itself.
        standing: ``active`` | ``expired`` | ``revoked``, when it was read.
    """

    id: str
    tenant: str
    name: str
    scopes: tuple[Scope, ...]
    rate_per_second: float
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None
    standing: Literal["active", "expired", "revoked"]


def add_key(connection: Connection, **asked: Any) -> ApiKey:
    """Write a key; `asked` names the statement's parameters, `seconds` being its life, None for ever."""
    return _key(connection.execute(ADD, asked).one())


def key_by_id(connection: Connection, key_id: str) -> tuple[ApiKey, bytes] | None:
    """Return a key and the hash of its secret; None where there is none."""
    rows = KEY_BY_ID.run(connection, {"id": key_id})
    return (_key(rows[0]), bytes(rows[0].secret_hash)) if rows else None


def keys_of(connection: Connection, tenant: str) -> list[ApiKey]:
    """Return a tenant's keys, the oldest first; those that ended, too."""
    return [_key(row) for row in connection.execute(KEYS_OF, {"tenant": tenant})]


def revoke_key(connection: Connection, tenant: str, key_id: str, *, who: str, seconds: float) -> ApiKey | None:
    """End a key at once, or in so many seconds; None where this tenant has no such key that was not revoked."""
    asked = {"id": key_id, "tenant": tenant, "who": who, "seconds": seconds}
    found: Sequence[Any] = connection.execute(REVOKE, asked).all()
    return _key(found[0]) if found else None


def _key(row: Any) -> ApiKey:
    fields = {name: getattr(row, name) for name in ApiKey.__dataclass_fields__}
    return ApiKey(**fields | {"scopes": tuple(row.scopes), "rate_per_second": float(row.rate_per_second)})

"""Keys for the HTTP API: made, shown once, checked, ended.

A key is ``sf_<id>_<secret>``. The secret has 256 bits from the system's randomness, so a plain SHA-256 of it is as good
as any slow hash: there is nothing to guess. A key is shown when it is made and never again.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar, get_args

from sqlalchemy.engine import Connection

from producer.acting import actor, check_reason
from producer.canonical import shown
from producer.envelope import NAME_LIMIT, check_name
from producer.errors import InvalidRequest, KeyNotFound
from producer.ledger import keys as ledger
from producer.ledger.acts import act_of, on_record
from producer.ledger.keys import ApiKey, Scope

SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_RATE = 200.0
FASTEST_RATE = 100_000.0
LONGEST_SECONDS = 10 * 365 * 86_400.0

_ID = re.compile(r"[a-z0-9]{12}")
_KEY = re.compile(r"sf_([a-z0-9]{12})_([A-Za-z0-9]{43})")
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_LETTERS = _ALPHABET + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

T = TypeVar("T")


class Keys:
    """What ``producer.keys`` is: one tenant's keys. Safe to share between threads."""

    def __init__(self, tenant: str, read: Callable[[Callable[[Connection], Any]], Any]) -> None:
        """Work by `read`, which does something on a connection to the ledger."""
        self._tenant, self._read = tenant, read

    def create(
        self,
        name: str,
        scopes: Collection[Scope],
        *,
        seconds: float | None = None,
        rate_per_second: float = DEFAULT_RATE,
        who: str | None = None,
        reason: str | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key.

        Args:
            name: Who or what will have it.
            scopes: What it may do: ``enqueue``, ``read``, ``approve``, ``operate`` (cancel, retry, resolve), ``admin``
                (all of it, and what concerns every tenant).
            seconds: Its life; None is until it is revoked.
            rate_per_second: Requests that one API process takes of it in a second.
            who: Who makes it; by default the user that this process runs as.
            reason: Why; kept on record.

        Returns:
            The key as it is on record, and the key itself, which cannot be had again.

        Raises:
            InvalidRequest: If any of this cannot be; nothing was written.
            LedgerUnavailable: If Postgres is away.
        """
        check_name("name", name, NAME_LIMIT)
        _check_number("rate_per_second", rate_per_second, FASTEST_RATE)
        if seconds is not None:
            _check_number("seconds", seconds, LONGEST_SECONDS)
        check_reason(reason)
        secret = "".join(secrets.choice(_LETTERS) for _ in range(43))
        said_by = actor(who)
        asked = {
            "id": "".join(secrets.choice(_ALPHABET) for _ in range(12)),
            "tenant": self._tenant,
            "name": name,
            "scopes": _checked_scopes(scopes),
            "rate_per_second": rate_per_second,
            "secret_hash": hash_of(secret),
            "who": said_by.who,
            "seconds": seconds,
        }
        facts = {"name": name, "scopes": asked["scopes"]}
        act = act_of(said_by, self._tenant, "create key", str(asked["id"]), reason=reason, **facts)
        key: ApiKey = self._read(lambda c: on_record(c, act, lambda: ledger.add_key(c, **asked)))
        return key, f"sf_{key.id}_{secret}"

    def identify(self, key: str) -> ApiKey | None:
        """Return what is on record of a key, of whichever tenant; None for one that is none, or has ended.

        Raises:
            LedgerUnavailable: If Postgres is away.
        """
        parts = parts_of(key)
        if parts is None:
            return None
        found = self._found(parts[0])
        record, secret_hash = found or (None, b"\0" * 32)  # a key that is not there takes as long
        is_genuine = is_secret_of(parts[1], secret_hash)
        return record if record is not None and is_genuine and record.standing == "active" else None

    def active(self, key_id: str) -> ApiKey | None:
        """Return what is on record of a key, of whichever tenant, by its id; None where there is none, or it has ended.

        An id proves nothing: for whoever has shown the key before.
        """
        found = self._found(key_id)
        return found[0] if found is not None and found[0].standing == "active" else None

    def list(self) -> Sequence[ApiKey]:
        """Return the tenant's keys, the oldest first; those that ended, too."""
        found: Sequence[ApiKey] = self._read(lambda c: ledger.keys_of(c, self._tenant))
        return found

    def revoke(
        self, key_id: str, *, in_seconds: float = 0.0, who: str | None = None, reason: str | None = None
    ) -> ApiKey:
        """End a key: at once, or later, so that its holder can change over to another first.

        Raises:
            InvalidRequest: If `in_seconds` is no time to wait.
            KeyNotFound: If this tenant has no such key, or it was revoked.
        """
        if in_seconds:
            _check_number("in_seconds", in_seconds, LONGEST_SECONDS)
        check_reason(reason)
        if _ID.fullmatch(key_id) is None:
            raise KeyNotFound(f"{shown(key_id)} is no key's id: that is the part between sf_ and the secret")
        said_by, tenant = actor(who), self._tenant
        act = act_of(said_by, tenant, "revoke key", key_id, reason=reason, in_seconds=in_seconds)
        ended: ApiKey | None = self._read(
            lambda c: on_record(
                c, act, lambda: ledger.revoke_key(c, tenant, key_id, who=said_by.who, seconds=in_seconds)
            )
        )
        if ended is None:
            raise KeyNotFound(f"there is no key {shown(key_id)} that could be revoked")
        return ended

    def _found(self, key_id: str) -> tuple[ApiKey, bytes] | None:
        found: tuple[ApiKey, bytes] | None = self._read(lambda c: ledger.key_by_id(c, key_id))
        return found


def parts_of(key: str) -> tuple[str, str] | None:
    """Return a key's id and secret; None where it is none."""
    found = _KEY.fullmatch(key)
    return None if found is None else (found[1], found[2])


def hash_of(secret: str) -> bytes:
    """Return what is kept of a secret: its SHA-256, 32 bytes."""
    return hashlib.sha256(secret.encode()).digest()


def is_secret_of(secret: str, secret_hash: bytes) -> bool:
    """Whether a secret is the one whose hash is on record; takes as long whether it is or not."""
    return hmac.compare_digest(hash_of(secret), secret_hash)


def _checked_scopes(scopes: Collection[str]) -> list[str]:
    unknown = sorted(set(scopes) - set(SCOPES)) if not isinstance(scopes, str) else [scopes]
    if unknown or not scopes:
        found = f"{shown(unknown[0])} is none of" if unknown else "are missing: any of"
        raise InvalidRequest("scopes", f"{found} {', '.join(SCOPES)}")
    return [scope for scope in SCOPES if scope in scopes]


def _check_number(name: str, number: Any, most: float) -> None:
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number <= most:
        raise InvalidRequest(name, f"{shown(number)} is not more than 0 and at most {most:g}")

"""Signed tokens, for links by which one person decides one thing. Pure.

``sfa_<what it says>.<signature>``: JSON in URL-safe base64, and its HMAC-SHA256. The ledger has a hash of each, so that
whoever reads it can use none; the signature keeps whoever writes to it from making one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from typing import Any

from producer.errors import SettingsError, TokenRefused

PREFIX = "sfa_"
KEY_CHARACTERS = 32


def sign(claims: Mapping[str, Any], key: str) -> str:
    """Return a token that says `claims`; no two are the same.

    Raises:
        SettingsError: If the key is missing, or can be guessed.
    """
    check_key(key)
    body = _encoded(json.dumps({**claims, "nonce": secrets.token_urlsafe(24)}, separators=(",", ":")).encode())
    return f"{PREFIX}{body}.{_signature(body, key)}"


def claims_of(token: str, key: str) -> dict[str, Any]:
    """Return what a token says.

    Raises:
        SettingsError: As for `sign`.
        TokenRefused: If it is none, or its signature is not this key's.
    """
    check_key(key)
    body, dot, signature = token.removeprefix(PREFIX).partition(".")
    if not token.startswith(PREFIX) or not dot or not token.isascii():
        raise TokenRefused("that is no token")
    if not hmac.compare_digest(signature, _signature(body, key)):
        raise TokenRefused("the token is not genuine")
    try:
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, binascii.Error) as error:
        raise TokenRefused("that is no token") from error
    return claims


def hash_of(token: str) -> bytes:
    """Return what is kept of a token: its SHA-256."""
    return hashlib.sha256(token.encode()).digest()


def check_key(key: str) -> None:
    """Refuse a key by which anybody might sign.

    Raises:
        SettingsError: If it is missing or short.
    """
    if len(key) < KEY_CHARACTERS:
        raise SettingsError(
            f"SUREFOOT_SIGNING_KEY must have {KEY_CHARACTERS} characters or more; make one with openssl rand -hex 32"
        )


def _signature(body: str, key: str) -> str:
    return _encoded(hmac.digest(key.encode(), body.encode(), "sha256"))


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

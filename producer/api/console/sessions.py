"""Who is signed in: tokens that say which key, until when, under a signature; and what forms prove by.

A token holds no key and nothing is kept of it: each request looks its key up, so that a key that was revoked ends its
sessions at once. ``v1.<key id>.<expires>.<nonce>.<signature>``.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable

_TOKEN = re.compile(r"v1\.([a-z0-9]{12})\.([0-9]{1,12})\.[A-Za-z0-9_-]{22}")


class Sessions:
    """Makes tokens and checks them. Several processes of the API do so alike where they are given one secret."""

    def __init__(self, secret: str, *, seconds: float, clock: Callable[[], float] = time.time) -> None:
        """Sign by a secret; an empty one is drawn at random, and its sessions end with this process."""
        self._secret = secret.encode() or secrets.token_bytes(32)
        self._seconds, self._clock = seconds, clock

    def begin(self, key_id: str) -> str:
        """Return the token of a new session for somebody who has shown that key."""
        body = f"v1.{key_id}.{int(self._clock() + self._seconds)}.{secrets.token_urlsafe(16)}"
        return f"{body}.{self._sign('session', body)}"

    def key_of(self, token: str) -> str | None:
        """Return whose key began a session; None for a token that is none, or has expired."""
        body, _, signature = token.rpartition(".")
        found = _TOKEN.fullmatch(body)
        if found is None or not hmac.compare_digest(self._sign("session", body).encode(), signature.encode()):
            return None
        return found[1] if int(found[2]) > self._clock() else None

    def form_token(self, bound_to: str) -> str:
        """Return what a form carries to prove that one of our pages sent it, to this very visitor."""
        return self._sign("form", bound_to)

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._secret, f"{purpose} {text}".encode(), hashlib.sha256).hexdigest()

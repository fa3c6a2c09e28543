"""What the actions that come with Surefoot are told from outside."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from producer.errors import SettingsError

PRICES_FILE = Path(__file__).with_name("_prices.json")


@dataclass(frozen=True, slots=True)
class Smtp:
    """Where mail is handed over.

    Attributes:
        security: ``none`` (loopback and trusted networks), ``starttls`` or ``tls``.
        user: None sends without signing in.
    """

    host: str
    port: int
    security: str
    user: str | None
    password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens."""

    tokens_in: Decimal
    tokens_out: Decimal


_SMTP = {"smtp": ("none", 25), "smtp+starttls": ("starttls", 587), "smtps": ("tls", 465)}


@cache
def smtp() -> Smtp:
    """Read ``SUREFOOT_SMTP_URL``: ``smtp[s]://user:password@host:port``, or ``smtp+starttls://…``.

    Raises:
        SettingsError: If it is missing or malformed.
    """
    try:
        url = urlsplit(os.environ.get("SUREFOOT_SMTP_URL", ""))
        host, given_port = url.hostname, url.port
    except ValueError:  # its words quote the URL, which holds the password
        raise SettingsError("SUREFOOT_SMTP_URL is not a URL; write / and @ in a password as %2F and %40") from None
    if url.scheme not in _SMTP or not host:
        raise SettingsError("SUREFOOT_SMTP_URL must be smtp://, smtp+starttls:// or smtps:// and name a host")
    security, port = _SMTP[url.scheme]
    user, password = (unquote(part) if part else None for part in (url.username, url.password))
    return Smtp(host, given_port or port, security, user, password)


@cache
def prices() -> dict[str, Price]:
    """Read the price table: ``SUREFOOT_PRICES_FILE``, or the dated one that comes with Surefoot.

    The file's shape: ``{"as_of": "2025-06-01", "usd_per_million_tokens": {"model": {"in": "0.15", "out": "0.60"}}}``.

    Raises:
        SettingsError: If the file cannot be read as that.
    """
    path = Path(os.environ.get("SUREFOOT_PRICES_FILE") or PRICES_FILE)
    try:
        # Decimal: 0.15 as a float is a little less, and a million calls later it shows.
        table = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)["usd_per_million_tokens"]
        return {model: Price(_dollars(p["in"]), _dollars(p["out"])) for model, p in table.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise SettingsError(f"{path} is not a price table: {type(error).__name__}: {error}") from error


def cost_of(model: str, tokens_in: int, tokens_out: int) -> Decimal | None:
    """Return what a call cost in US dollars; None where the model's price is not known, which is not zero.

    A dated version (``gpt-4o-mini-2024-07-18``) has the price of the model that it is a version of.
    """
    table = prices()
    known = [name for name in table if model == name or model.startswith(f"{name}-20")]
    if not known:
        return None
    price = table[max(known, key=len)]
    return (price.tokens_in * tokens_in + price.tokens_out * tokens_out) / 1_000_000


def _dollars(price: str | int | Decimal) -> Decimal:
    dollars = Decimal(price)
    if not dollars.is_finite() or dollars < 0:
        raise ValueError(f"{price} is not a price")
    return dollars

"""What the actions that come with Surefoot are told from outside."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any
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
    """US dollars for a million tokens.

    Attributes:
        since: The first day, in UTC, on which that is the price; None has always been.
    """

    tokens_in: Decimal
    tokens_out: Decimal
    since: date | None = None


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
def prices() -> dict[str, tuple[Price, ...]]:
    """Read the price table, JSON or TOML: ``SUREFOOT_PRICES_FILE``, or the dated one that comes with Surefoot.

    The file's shape: ``{"as_of": "2025-06-01", "usd_per_million_tokens": {"model": {"in": "0.15", "out": "0.60"}}}``.
    A model whose price changes has a list of them, each ``{"from": "2025-06-01", "in": …, "out": …}``.

    Returns:
        The prices of each model, the newest first.

    Raises:
        SettingsError: If the file cannot be read as that.
    """
    path = Path(os.environ.get("SUREFOOT_PRICES_FILE") or PRICES_FILE)
    try:
        read = path.read_text(encoding="utf-8")
        # Decimal: 0.15 as a float is a little less, and a million calls later it shows.
        loads = tomllib.loads if path.suffix == ".toml" else json.loads
        table = loads(read, parse_float=Decimal)["usd_per_million_tokens"]
        return {model: _dated(entry if isinstance(entry, list) else [entry]) for model, entry in table.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise SettingsError(f"{path} is not a price table: {type(error).__name__}: {error}") from error


def price_of(model: str, *, on: date | None = None) -> Price | None:
    """Return a model's price; None where it is not known, which is not zero.

    A dated version (``gpt-4o-mini-2024-07-18``) has the price of the model that it is a version of.

    Args:
        model: By name.
        on: The day of the call, in UTC; None is today.
    """
    table, day = prices(), on or datetime.now(UTC).date()
    known = [name for name in table if model == name or model.startswith(f"{name}-20")]
    if not known:
        return None
    return next((price for price in table[max(known, key=len)] if price.since is None or price.since <= day), None)


def cost_of(model: str, tokens_in: int, tokens_out: int, *, on: date | None = None) -> Decimal | None:
    """Return what a call costs in US dollars; None where the model's price on that day is not known."""
    price = price_of(model, on=on)
    if price is None:
        return None
    return (price.tokens_in * tokens_in + price.tokens_out * tokens_out) / 1_000_000


def _dated(entries: list[Any]) -> tuple[Price, ...]:
    found = [Price(_dollars(each["in"]), _dollars(each["out"]), _day(each.get("from"))) for each in entries]
    if len({price.since for price in found}) < len(found) or not found:
        raise ValueError("a model has one price from each day on")
    return tuple(sorted(found, key=lambda price: price.since or date.min, reverse=True))


def _day(told: Any) -> date | None:
    # TOML has dates of its own, JSON has text.
    return told if told is None or type(told) is date else date.fromisoformat(told)


def _dollars(price: str | int | Decimal) -> Decimal:
    dollars = Decimal(price)
    if not dollars.is_finite() or dollars < 0:
        raise ValueError(f"{price} is not a price")
    return dollars

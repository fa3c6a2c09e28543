"""What a producer is told from outside: the one reader of the environment on this side."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Self

from producer.broker import SENTINEL, sentinels_of
from producer.errors import SettingsError
from producer.spans import NONE, TRACES

PREFIX = "SUREFOOT_"
TENANT_LIMIT = 64
QUEUE_LIMIT = 255

_SCHEME = re.compile(r"([a-z][a-z0-9+.\-]*)://", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of either side; each is read from ``SUREFOOT_`` and its name in capitals.

    With ``_FILE`` after that it is the name of a file that holds the value, as secrets are mounted into containers.

    Attributes:
        database_url: The ledger, ``postgresql://user:password@host:port/name``.
        redis_url: Celery's broker, ``redis://:password@host:port/0``. Losing what is in it loses nothing.
        tenant: Whose jobs this process asks for and sees; 1 to 64 characters.
        queue: The Celery queue of actions that name none.
        signing_key: Signs the tokens of links by which people approve; 32 characters or more. Without it there are
            none.
        ring_timeout_seconds: How long an accept may wait for Redis before leaving the ring to the relay.
        traces: ``otlp`` sends spans to the collector that ``OTEL_EXPORTER_OTLP_ENDPOINT`` names; ``none`` does not.
    """

    database_url: str = field(default="", repr=False)  # may hold a password, as the next
    redis_url: str = field(default="", repr=False)
    tenant: str = "default"
    queue: str = "actions"
    signing_key: str = field(default="", repr=False)
    ring_timeout_seconds: float = 1.0
    traces: str = NONE

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: object) -> Self:
        """Read the environment, let `overrides` that are not None win, and check what came of it.

        Raises:
            SettingsError: If a setting is missing or malformed; the message names its variable.
            TypeError: If an override is not the name of a setting.
        """
        environ = os.environ if environ is None else environ
        unknown = overrides.keys() - {each.name for each in fields(cls)}
        if unknown:
            raise TypeError(f"{min(unknown)!r} is not a setting of {cls.__name__}")
        values: dict[str, object] = {}
        for each in fields(cls):
            variable = PREFIX + each.name.upper()
            given = overrides.get(each.name)
            if given is not None:
                values[each.name] = given
            elif (text := _told(environ, variable)) is not None:
                values[each.name] = _parse(variable, text, str(each.type))
        settings = cls(**values)  # type: ignore[arg-type]  # each value was parsed by its field's own type
        settings.require()
        return settings

    def require(self) -> None:
        """Raise SettingsError for the first setting without which nothing can start."""
        _require_url("database_url", self.database_url, ("postgresql", "postgresql+psycopg2", "postgres"))
        _require_url("redis_url", self.redis_url, ("redis", "rediss", "sentinel", "amqp", "amqps"))
        if self.redis_url.startswith(SENTINEL):
            sentinels_of(self.redis_url)
        _require_name("tenant", self.tenant, TENANT_LIMIT)
        _require_name("queue", self.queue, QUEUE_LIMIT)
        if self.traces not in TRACES:
            raise SettingsError(f"{PREFIX}TRACES={self.traces!r} is not {' or '.join(TRACES)}")
        if self.ring_timeout_seconds <= 0:
            raise SettingsError(f"{PREFIX}RING_TIMEOUT_SECONDS={self.ring_timeout_seconds:g} must be more than 0")


def _require_url(name: str, url: str, schemes: tuple[str, ...]) -> None:
    variable = PREFIX + name.upper()
    if not url:
        raise SettingsError(f"{variable} is not set; give it a URL such as {schemes[0]}://user:password@host/0")
    scheme = _SCHEME.match(url)
    if scheme is None or scheme[1].lower() not in schemes:
        # The URL itself may hold a password, so only its scheme is shown.
        begins = f"begins with {scheme[1]!r}" if scheme else "is not a URL"
        raise SettingsError(f"{variable} {begins}; it must begin with one of {', '.join(schemes)}")


def _require_name(name: str, text: str, limit: int) -> None:
    if not 1 <= len(text) <= limit or not text.isprintable():
        raise SettingsError(f"{PREFIX}{name.upper()} must have 1 to {limit} printable characters, not {len(text)}")


def _told(environ: Mapping[str, str], variable: str) -> str | None:
    """Return what the environment says, or the file that it names; the file, where it names one."""
    path = environ.get(f"{variable}_FILE")
    if not path:
        return environ.get(variable)
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{variable}_FILE={path!r} cannot be read: {error}") from error


def _parse(variable: str, text: str, kind: str) -> object:
    """Turn an environment string into the field's type; the types are few, so a table does."""
    parsers: dict[str, Callable[[str], object]] = {
        "str": str,
        "int": int,
        "float": _parse_seconds,
        "bool": _parse_bool,
        "tuple[str, ...]": _parse_names,
    }
    try:
        return parsers[kind](text)
    except ValueError as error:
        raise SettingsError(f"{variable}={text!r} is not {kind}") from error


def _parse_seconds(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _parse_bool(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _parse_names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())

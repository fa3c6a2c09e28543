"""Whom ``http.request`` may call: the hosts of ``SUREFOOT_HTTP_HOSTS``, or anybody where it is not set."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address

import httpx

from producer.canonical import shown
from producer.errors import SettingsError

# A proxy may read more into what no name in DNS has than the client does: where a path begins, or a user ends.
_A_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_WILD = "*."


@dataclass(frozen=True, slots=True)
class Hosts:
    """Those that may be called; where none is named, any.

    Attributes:
        names: Each as `host_of` has it, or ``*.`` and such a one for all below it.
    """

    names: tuple[str, ...]

    def include(self, url: httpx.URL) -> bool:
        """Say whether a URL's host is one of them."""
        if not self.names:
            return True
        host = host_of(url)
        return host is not None and any(
            host.endswith(name.removeprefix("*")) if name.startswith(_WILD) else host == name for name in self.names
        )


@cache
def http_hosts() -> Hosts:
    """Read ``SUREFOOT_HTTP_HOSTS``: hosts, with commas in between; ``*.example.com`` is all below ``example.com``.

    Raises:
        SettingsError: If one of them is no host, or it is set and names none.
    """
    told = os.environ.get("SUREFOOT_HTTP_HOSTS", "")
    names = tuple(_named(each.strip()) for each in told.split(",") if each.strip())
    if told and not names:
        raise SettingsError(f"SUREFOOT_HTTP_HOSTS: {shown(told)} names no host; leave it unset where any may be called")
    return Hosts(names)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def host_of(url: httpx.URL) -> str | None:
    """Return whom a client connects to by a URL, in the one way to write it; None where that is nobody's name."""
    told = url.raw_host.decode("ascii").lower().removesuffix(".")
    try:
        return ip_address(told).compressed
    except ValueError:
        return told if _A_NAME.fullmatch(told) else None


def _named(told: str) -> str:
    """Return a host of the list. One with a port or a path would match nothing, and say nothing: it is refused."""
    wild = _WILD if told.startswith(_WILD) else ""
    with suppress(httpx.InvalidURL):
        host = host_of(httpx.URL(scheme="http", host=told.removeprefix(wild)))
        if host is not None and not (wild and _is_address(host)):
            return wild + host
    problem = f"{shown(told)} is not a host; write api.example.com, or *.example.com for all below it"
    raise SettingsError(f"SUREFOOT_HTTP_HOSTS: {problem}")

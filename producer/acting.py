"""Who acts, and from where: what an operator's act is put on record with, whichever way it came in.

The command line and the API say so once for all that follows in their context; a program that says nothing is named by
the user and the host that it runs as.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from getpass import getuser

from producer.envelope import NAME_LIMIT, check_name

REASON_LIMIT = 4_096


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody who acts.

    Attributes:
        who: A user's name, or a key's with its id.
        via: From where: ``cli on HOST``, ``python on HOST``, ``api key ID from ADDRESS``.
    """

    who: str
    via: str


_acting: ContextVar[Actor | None] = ContextVar("surefoot_acting", default=None)


@contextmanager
def acting(who: str, via: str) -> Iterator[None]:
    """Have whatever is done in the block be put on record as this."""
    token = _acting.set(Actor(who, via))
    try:
        yield
    finally:
        _acting.reset(token)


def act_as(who: str, via: str) -> None:
    """Have whatever follows in this context, a request's or a command's, be put on record as this."""
    _acting.set(Actor(who, via))


def via_host(way: str) -> str:
    """Return from where, where that is this host."""
    return f"{way} on {socket.gethostname()}"


def user_here() -> str:
    """Return the user that this process runs as; a container may know no name for it."""
    try:
        return getuser()
    except (KeyError, OSError):
        return "unknown"


def check_reason(reason: object) -> None:
    """Refuse what cannot be kept as a reason, which may have several lines; None is none, and passes.

    Raises:
        InvalidRequest: Saying what is wrong with it.
    """
    check_name("reason", reason, REASON_LIMIT, may_span_lines=True)


def actor(who: str | None = None) -> Actor:
    """Return who acts now; `who` is what somebody says of themselves, and goes before.

    Raises:
        InvalidRequest: If that cannot be a name.
    """
    check_name("who", who, NAME_LIMIT)
    known = _acting.get() or Actor(user_here(), via_host("python"))
    return replace(known, who=who) if who else known

"""Where alerts go: one thread for each of Apprise's URLs, so that one that hangs keeps nobody waiting but itself.

A channel is named by its place in the setting and its scheme: the rest of a URL may be a secret.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import warnings
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast
from urllib.parse import quote, unquote, unquote_plus

from producer.redact import REDACTED, redact_text
from worker.alert_words import LEVELS, Alert, Level
from worker.log import log

# Apprise waits four seconds to connect and four for each piece of an answer; this is for all of it.
SEND_SECONDS = 15.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 300.0
# What could not be sent for so long is of no use any more.
STALE_SECONDS = 3_600.0
HELD = 100

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_loading = threading.Lock()
# What separates the parts of a URL, each of which may be a secret; of a query, its values.
_BETWEEN = re.compile(r"[/:@,;#?&]+")
# A part that is shorter is looked for as a word by itself: else half of a sentence would go with it.
WORD = 4
_LEVEL = re.compile(rf"({'|'.join(LEVELS)})=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Address:
    """One entry of ``SUREFOOT_ALERT_URLS``.

    Attributes:
        name: For people: ``2:slack``.
        minimum: The least level that it wants.
        url: Apprise's. It may hold a secret, and is shown nowhere.
    """

    name: str
    minimum: Level
    url: str

    def __repr__(self) -> str:
        """Show no URL."""
        return f"Address({self.name!r}, {self.minimum!r})"


def addresses(entries: Sequence[str]) -> list[Address]:
    """Read the setting. What begins with no scheme belongs to the URL before it: that had a comma in it."""
    whole: list[str] = []
    for entry in entries:
        level = _LEVEL.match(entry)
        if whole and not _SCHEME.match(level[2] if level else entry):
            whole[-1] += f",{entry}"
        else:
            whole.append(entry)
    found: list[Address] = []
    for number, entry in enumerate(whole, 1):
        level = _LEVEL.match(entry)
        url = level[2] if level else entry
        scheme = _SCHEME.match(url)
        minimum = cast("Level", level[1]) if level else "warning"
        found.append(Address(f"{number}:{scheme[1].lower() if scheme else '?'}", minimum, url))
    return found


def doubts(entries: Sequence[str]) -> Iterator[str]:
    """Yield what Apprise does not understand, without showing it."""
    for address in addresses(entries):
        if _plugin(address) is None:
            yield f"SUREFOOT_ALERT_URLS: {address.name} is no URL that Apprise can send to"


def without_address(words: str, url: str) -> str:
    """Return what Apprise says of a URL with nothing of that in it but the scheme, however it is spelled.

    Any part of a URL may be the secret: Slack's is the host, a topic's is the path, a password is neither.
    """
    _, _, rest = url.partition("://")
    user, at, _ = rest.rpartition("@")
    written = [part.rpartition("=")[2] or part for part in _BETWEEN.split(rest)] + [rest, user]
    parts = {spelled for part in written for spelled in (part, unquote(part), unquote_plus(part), quote(part, safe=""))}
    if at:
        parts.add(b64encode(unquote(user).encode()).decode())
    for part in sorted(filter(None, parts | {part.strip("#@+!~*-_ ") for part in parts}), key=len, reverse=True):
        pattern = re.escape(part) if len(part) >= WORD else rf"(?<!\w){re.escape(part)}(?!\w)"
        words = re.sub(pattern, lambda _: REDACTED, words, flags=re.IGNORECASE)
    return redact_text(words)


def send(address: Address, alert: Alert) -> str | None:
    """Send now, within 15 seconds; return None where it was taken, else what went wrong. Raises nothing."""
    return _Sender(address).send(alert)


class Channel:
    """Sends one after the other, and tries again what was not taken, ever later."""

    def __init__(self, address: Address, *, done: Callable[[Alert], None]) -> None:
        """Start nothing yet.

        Args:
            address: Where to.
            done: Told, in the channel's thread, what was taken, and what was given up.
        """
        self.address = address
        self._done = done
        self._changed = threading.Condition()
        self._held: deque[tuple[float, Alert]] = deque()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._sender = _Sender(address)

    def wants(self, alert: Alert) -> bool:
        """Whether its level is told here."""
        return LEVELS.index(alert.level) >= LEVELS.index(self.address.minimum)

    def put(self, alert: Alert) -> None:
        """Have it sent soon; returns at once. Beyond a hundred the oldest is given up."""
        with self._changed:
            self._held.append((time.monotonic(), alert))
            given_up = self._held.popleft()[1] if len(self._held) > HELD else None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"alerts {self.address.name}", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        if given_up is not None:
            self._give_up(given_up, f"more than {HELD} wait")

    def close(self) -> None:
        """Have the thread end once everything was tried once more; `join` waits for that."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def join(self, seconds: float) -> None:
        """Wait for the thread's end, so long at most."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        failures = 0
        while (alert := self._next()) is not None:
            error = self._sender.send(alert)
            if error is None:
                failures = 0
                self._drop(alert)
                log.info("alert.sent", channel=self.address.name, kind=alert.kind, title=alert.title)
                self._done(alert)
                continue
            pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 20))
            failures += 1
            log.warning("alert.failed", channel=self.address.name, kind=alert.kind, error=error, pause_seconds=pause)
            if self._closing:
                self._drop(alert)
            self._pause(pause)

    def _next(self) -> Alert | None:
        while True:
            with self._changed:
                while not self._held:
                    if self._closing:
                        return None
                    self._changed.wait()
                since, alert = self._held[0]
                if time.monotonic() - since <= STALE_SECONDS:
                    return alert
                self._held.popleft()
            self._give_up(alert, "too late by now")

    def _drop(self, alert: Alert) -> None:
        with self._changed:
            if self._held and self._held[0][1] is alert:  # else it was given up meanwhile
                self._held.popleft()

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)

    def _give_up(self, alert: Alert, why: str) -> None:
        log.error("alert.dropped", channel=self.address.name, kind=alert.kind, title=alert.title, why=why)
        self._done(alert)


class _Sender:
    """Sends in a thread that can be left behind; one at a time, so that they do not gather where one hangs."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._thread: threading.Thread | None = None

    def send(self, alert: Alert) -> str | None:
        if self._thread is not None and self._thread.is_alive():
            return "the one before still hangs"
        errors: list[str] = []
        self._thread = threading.Thread(
            target=_send, args=(self._address, alert, errors), name=f"alert to {self._address.name}", daemon=True
        )
        self._thread.start()
        self._thread.join(SEND_SECONDS)
        if self._thread.is_alive():
            return f"no end within {SEND_SECONDS:g} s"
        return errors[0] if errors else None


class _Said(logging.Handler):
    """Keeps the last thing that Apprise says in one thread: it returns no more than that it went wrong."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.ident, self.last = threading.get_ident(), ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.ident:
            self.last = record.getMessage()


def _send(address: Address, alert: Alert, errors: list[str]) -> None:
    said, library = _Said(), logging.getLogger("apprise")
    library.addHandler(said)
    try:
        plugin = _plugin(address)
        if plugin is None:
            errors.append("no URL that Apprise can send to")
        elif not plugin.notify(title=alert.title, body=alert.body, notify_type=_type_of(alert), body_format="text"):
            errors.append(without_address(said.last, address.url) or "not taken")
    except Exception as error:  # noqa: BLE001  it is somebody's library, and a worker's thread
        errors.append(without_address(f"{type(error).__name__}: {error}", address.url))
    finally:
        library.removeHandler(said)


def _plugin(address: Address) -> Any:
    """Return Apprise's sender for a URL; None where it knows none."""
    apprise = _apprise()
    try:
        return apprise.Apprise.instantiate(
            address.url, asset=apprise.AppriseAsset(app_id="Surefoot", app_desc="Surefoot's alerts")
        )
    except Exception:  # noqa: BLE001  as an address with half a bracket
        return None


@cache
def _loaded() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it imports of Python's own is deprecated there
        import apprise  # noqa: PLC0415  it takes half a second

        apprise.Apprise.instantiate("json://localhost")  # by which it loads all of itself
    library = logging.getLogger("apprise")
    library.propagate = False  # what it says of a failure is in our own line; else it may show a URL
    library.addHandler(logging.NullHandler())
    return apprise


def _apprise() -> Any:
    with _loading:
        return _loaded()


def _type_of(alert: Alert) -> str:
    return "success" if alert.recovered else {"info": "info", "warning": "warning", "error": "failure"}[alert.level]

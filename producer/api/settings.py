"""What the API is told from outside: the producer's settings and its own."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from producer.errors import SettingsError
from producer.keys import SCOPES
from producer.settings import PREFIX, Settings

REQUIRED, NONE_ON_LOOPBACK, NONE_ANYWHERE = "required", "none-on-loopback", "none-anybody-may-do-anything"
SECRET_LENGTH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings(Settings):
    """Settings of the API; each is read from ``SUREFOOT_`` and its name in capitals.

    Attributes:
        api_host: The address that it listens on.
        api_port: The port.
        api_keys: ``required``; ``none-on-loopback`` takes whoever reaches it, and starts on loopback only; or
            ``none-anybody-may-do-anything``, which is what it says.
        api_body_bytes: The largest body that it reads.
        api_body_seconds: How long a caller may take to send his headers, and again his body.
        api_wait_seconds: The longest that one request may wait for a job.
        console: Whether there is one, below ``/console``.
        console_secret: Signs its sessions; 32 characters or more, the same for each process. Without one each process
            draws its own, and its sessions end with it.
        console_session_seconds: How long somebody stays signed in.
        console_proxies: Addresses and networks of proxies that are believed who it is that comes through them.
        console_user_header: By which they say so.
        console_scopes: What whoever comes through them may do.
        console_scopes_header: By which they say that for each, separated by commas; with one, the former is nobody's.
        console_flower_url: Where Flower is, for a link.
    """

    api_host: str = "127.0.0.1"
    api_port: int = 8100
    api_keys: str = REQUIRED
    api_body_bytes: int = 4 * 1024 * 1024
    api_body_seconds: float = 10.0
    api_wait_seconds: float = 60.0
    console: bool = True
    console_secret: str = field(default="", repr=False)
    console_session_seconds: float = 43_200.0
    console_proxies: tuple[str, ...] = ()
    console_user_header: str = "X-Forwarded-User"
    console_scopes: tuple[str, ...] = ("read",)
    console_scopes_header: str = ""
    console_flower_url: str = ""

    def require(self) -> None:
        """Raise SettingsError for the first setting with which nothing should start."""
        Settings.require(self)  # super() does not find a class that slots have made anew
        if self.api_keys not in (REQUIRED, NONE_ON_LOOPBACK, NONE_ANYWHERE):
            raise SettingsError(
                f"{PREFIX}API_KEYS={self.api_keys!r} is none of {REQUIRED}, {NONE_ON_LOOPBACK}, {NONE_ANYWHERE}"
            )
        if self.api_keys == NONE_ON_LOOPBACK and not _is_loopback(self.api_host):
            raise SettingsError(
                f"{PREFIX}API_KEYS={NONE_ON_LOOPBACK}, but {PREFIX}API_HOST={self.api_host} is reached from outside;"
                f" make keys (surefoot keys create), or say {NONE_ANYWHERE}"
            )
        for name in ("api_body_bytes", "api_body_seconds", "api_wait_seconds", "console_session_seconds"):
            if getattr(self, name) <= 0:
                raise SettingsError(f"{PREFIX}{name.upper()}={getattr(self, name):g} must be more than 0")
        if not 0 <= self.api_port <= 65_535:  # noqa: PLR2004  what a port is
            raise SettingsError(f"{PREFIX}API_PORT={self.api_port} is no port")
        self._require_console()

    def _require_console(self) -> None:
        if self.console_secret and len(self.console_secret) < SECRET_LENGTH:
            raise SettingsError(f"{PREFIX}CONSOLE_SECRET is shorter than {SECRET_LENGTH} characters")
        for network in self.console_proxies:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise SettingsError(f"{PREFIX}CONSOLE_PROXIES: {network!r} is no address and no network") from error
        for scope in self.console_scopes:
            if scope not in SCOPES:
                raise SettingsError(f"{PREFIX}CONSOLE_SCOPES: {scope!r} is none of {', '.join(SCOPES)}")
        if self.console_flower_url and not self.console_flower_url.startswith(("http://", "https://")):
            raise SettingsError(f"{PREFIX}CONSOLE_FLOWER_URL={self.console_flower_url!r} is no address of a web page")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

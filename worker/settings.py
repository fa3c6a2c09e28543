"""What a worker is told from outside: the producer's settings and its own. The one reader of the environment here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from producer.settings import Settings

SHORT_LEASE_SECONDS = 5.0
NOWHERE = "none"
_ADDRESS = re.compile(r"[^:\s]+:\d{1,5}|\[[^\]\s]+\]:\d{1,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings(Settings):
    """Settings of a worker; each is read from ``SUREFOOT_`` and its name in capitals.

    Attributes:
        action_modules: Modules with actions beside those in ``tasks/``; separated by commas.
        lease_seconds: How long a worker may be silent before others take over its jobs.
        renew_seconds: How often it says that it is alive; well under the lease.
        relay_seconds: How often it looks for jobs that nobody rang, and for leases that ran out.
        canary_seconds: How often it sends word to itself by way of the broker.
        deaf_seconds: A worker that hears nothing of that for so long, although it could, ends.
        crash_cap: Workers that a job may take down with it before it is left alone.
        threads: Sync actions that run at once in one process; each needs a thread.
        threads_left_behind_cap: A worker ends, to be started anew, once so many of its threads are with actions that
            outlived their deadline.
        loop_blocked_seconds: An action that keeps the event loop for longer is named in the log, with its stack.
        soft_shutdown_seconds: How long a stopping worker waits for its running actions; 0 does not.
        alert_urls: Where alerts go, as Apprise writes it; separated by commas. ``error=`` or ``info=`` before one is
            the least level that it wants to be told of, else ``warning``. Empty tells nobody.
        alert_due_seconds: A job that is due for so long, and that no worker has taken, is told.
        alert_silent_seconds: No worker has looked at what is due for so long: none is alive. `surefoot-worker watch`
            tells that.
        alert_group_seconds: What befalls jobs of one action within so long is one alert.
        alert_look_seconds: How often somebody of the fleet looks whether there is something to tell.
        alert_hourly: The most alerts in an hour; what is more is counted, and told in one.
        anchor_to: Where the newest seal over the record goes: a file that lines are added to, or an ``http(s)://`` URL
            that is posted to; ``none`` is nowhere.
        anchor_seconds: How often.
        budget_days: What is over of budgets (a day's share, what an attempt had reserved) is kept for so many days.
        metrics_address: Where this worker answers /metrics, /livez and /readyz, as ``host:port``; ``none`` is nowhere.
        log: ``json``, ``console``, or ``auto`` for the latter on a terminal.
        log_level: ``debug``, ``info``, ``warning`` or ``error``.
    """

    action_modules: tuple[str, ...] = ()
    lease_seconds: float = 30.0
    renew_seconds: float = 10.0
    relay_seconds: float = 1.0
    canary_seconds: float = 10.0
    deaf_seconds: float = 60.0
    crash_cap: int = 3
    threads: int = 32
    threads_left_behind_cap: int = 8
    loop_blocked_seconds: float = 1.0
    soft_shutdown_seconds: float = 25.0
    alert_urls: tuple[str, ...] = field(default=(), repr=False)  # they hold tokens
    alert_due_seconds: float = 300.0
    alert_silent_seconds: float = 30.0
    alert_group_seconds: float = 60.0
    alert_look_seconds: float = 5.0
    alert_hourly: int = 30
    anchor_to: str = NOWHERE
    anchor_seconds: float = 60.0
    budget_days: int = 35
    metrics_address: str = NOWHERE
    log: str = "auto"
    log_level: str = "info"

    def errors(self) -> Iterator[str]:
        """Yield what cannot work."""
        for each in fields(self):
            if each.name.endswith("_seconds") and not self._is_possible(each.name):
                yield f"SUREFOOT_{each.name.upper()}={getattr(self, each.name):g} is no time to wait"
        if self.renew_seconds * 2 > self.lease_seconds:
            yield (
                f"SUREFOOT_RENEW_SECONDS={self.renew_seconds:g} is more than half of"
                f" SUREFOOT_LEASE_SECONDS={self.lease_seconds:g}: one late renewal would lose the lease"
            )
        if self.deaf_seconds < self.canary_seconds:
            yield (
                f"SUREFOOT_DEAF_SECONDS={self.deaf_seconds:g} is less than"
                f" SUREFOOT_CANARY_SECONDS={self.canary_seconds:g}: a worker would not wait for its own word"
            )
        for name in ("threads", "threads_left_behind_cap", "alert_hourly", "budget_days"):
            if getattr(self, name) < 1:
                yield f"SUREFOOT_{name.upper()}={getattr(self, name)} must be 1 or more"
        if self.crash_cap < 1:
            yield f"SUREFOOT_CRASH_CAP={self.crash_cap} leaves no job a first try"
        yield from self._telling_errors()
        yield from self._alert_errors()

    def _telling_errors(self) -> Iterator[str]:
        if self.metrics_address != NOWHERE and not _ADDRESS.fullmatch(self.metrics_address):
            yield f"SUREFOOT_METRICS_ADDRESS={self.metrics_address!r} is not host:port, such as 127.0.0.1:9464"
        if self.log not in ("json", "console", "auto"):
            yield f"SUREFOOT_LOG={self.log!r} is not json, console or auto"
        if self.log_level not in ("debug", "info", "warning", "error"):
            yield f"SUREFOOT_LOG_LEVEL={self.log_level!r} is not debug, info, warning or error"

    def _alert_errors(self) -> Iterator[str]:
        if self.alert_urls:
            from worker.alert_channels import doubts  # noqa: PLC0415  Apprise takes half a second to load

            yield from doubts(self.alert_urls)

    def _is_possible(self, name: str) -> bool:
        seconds: float = getattr(self, name)
        return seconds >= 0 if name == "soft_shutdown_seconds" else seconds > 0

    def warnings(self) -> Iterator[str]:
        """Yield what works and will surprise."""
        if self.lease_seconds < SHORT_LEASE_SECONDS:
            yield (
                f"SUREFOOT_LEASE_SECONDS={self.lease_seconds:g} is short: a machine or a database that pauses for so"
                " long takes jobs away from workers that are alive"
            )

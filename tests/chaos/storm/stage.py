"""Everything that a storm rages on: servers, links, the world outside, the crew, and the harness's own way to each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras
import redis
from sqlalchemy.engine import make_url

from producer import Producer, Settings
from producer.keys import FASTEST_RATE
from producer.ledger.engine import open_engine
from producer.ledger.migrate import migrate
from tests.chaos.processes import World
from tests.chaos.storm.asks_world import RUN, WORLD
from tests.chaos.storm.crew import Crew, places
from tests.chaos.storm.link import Link
from tests.chaos.storm.notes import Notes
from tests.chaos.storm.sizes import Size
from worker.dev.servers import Postgres, Valkey

LEASE_SECONDS = 5.0
RENEW_SECONDS = 1.0
SWEEP_SECONDS = 0.5
CRASH_CAP = 3
HARNESS = "storm"
ODDITIES = "oddities.jsonl"
DISK = "1500M"
STATEMENT_MILLISECONDS = 20_000
# How long the harness waits for a Postgres that another lane has taken away.
AWAY_SECONDS, AWAY_PAUSE_SECONDS = 15.0, 0.2

WORKER_SETTINGS: Mapping[str, str] = {
    "SUREFOOT_LOG": "json",
    "SUREFOOT_LEASE_SECONDS": f"{LEASE_SECONDS}",
    "SUREFOOT_RENEW_SECONDS": f"{RENEW_SECONDS}",
    "SUREFOOT_RELAY_SECONDS": f"{SWEEP_SECONDS}",
    "SUREFOOT_CRASH_CAP": f"{CRASH_CAP}",
    "SUREFOOT_CANARY_SECONDS": "2",
    "SUREFOOT_DEAF_SECONDS": "14",
    "SUREFOOT_SOFT_SHUTDOWN_SECONDS": "5",
    "SUREFOOT_TENANT": RUN,
}
# What goes on where nothing is wrong: some answers are slow, and some requests are refused.
CALM: Mapping[str, Any] = {"latency": 0.08, "slow": 0.03, "slow_seconds": 0.7, "refused": 0.01, "patience": 0.003}


@dataclass(slots=True)
class Stage:
    """All of it.

    Attributes:
        folder: The evidence's; `home` has it, and the servers.
        disk: The mount on which Postgres lies; None where none can be had.
    """

    home: Path
    folder: Path
    postgres: Postgres
    valkey: Valkey
    world: World
    links: Mapping[str, Link]
    crew: Crew
    notes: Notes
    disk: Path | None
    weather: Mapping[str, Any]

    def odd(self, what: str) -> None:
        """Note what went otherwise than a fault's own code thought it would: a line of `oddities.jsonl`."""
        with (self.folder / ODDITIES).open("a") as file:
            file.write(json.dumps({"at": time.time(), "what": what}, ensure_ascii=False) + "\n")

    @contextmanager
    def connection(self, *, name: str = HARNESS) -> Iterator[Any]:
        """Give a connection to the ledger of the harness's own, in autocommit, past every link."""
        with closing(psycopg2.connect(plain(self.postgres.url), application_name=name, connect_timeout=5)) as own:
            own.autocommit = True
            with own.cursor() as cursor:
                cursor.execute(f"SET statement_timeout = {STATEMENT_MILLISECONDS}")
            yield own

    def ask(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows of a query that may be repeated; waits where Postgres is away."""
        latest = time.monotonic() + AWAY_SECONDS
        while True:
            try:
                with (
                    self.connection() as own,
                    own.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor,
                ):
                    cursor.execute(query, parameters or {})
                    return list(cursor.fetchall()) if cursor.description else []
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                if time.monotonic() > latest:
                    raise
                time.sleep(AWAY_PAUSE_SECONDS)

    def redis(self, *, seconds: float = 10.0) -> redis.Redis:
        """Return a client of Redis, past the link; the caller closes it."""
        return redis.Redis.from_url(self.valkey.url, socket_timeout=seconds, socket_connect_timeout=seconds)

    def blow(self, **more: Any) -> None:
        """Have the world behave as usual, but for what is named."""
        self.world.weather(RUN, {**self.weather, **more, "seed": int(time.time() * 1000)})


@contextmanager
def staged(home: Path, size: Size, *, seed: int) -> Iterator[Stage]:
    """Start servers, links and the world; the crew is there and has not begun. All of it ends with the block."""
    folder = home / RUN
    for each in (folder / "logs", home / "clocks"):
        each.mkdir(parents=True)
    with ExitStack() as ending:
        disk = ending.enter_context(own_disk(home / "disk"))
        postgres = ending.enter_context(Postgres(disk or home / "servers"))
        valkey = ending.enter_context(Valkey(home / "servers"))
        prepare(postgres)
        api_key = key_of(postgres, valkey)
        world = World(home)
        ending.callback(world.close)
        links = {
            "redis": ending.enter_context(Link.to(valkey.port)),
            "postgres": ending.enter_context(Link.to(postgres.port)),
        }
        environment = (
            os.environ
            | WORKER_SETTINGS
            | {
                "SUREFOOT_DATABASE_URL": make_url(postgres.url)
                .set(port=links["postgres"].port)
                .render_as_string(False),
                "SUREFOOT_REDIS_URL": valkey.url.replace(f":{valkey.port}/", f":{links['redis'].port}/"),
                WORLD: world.url,
            }
        )
        crew = Crew(
            folder,
            environment,
            seed,
            size.per_second / size.producers,
            free_port(),
            api_key,
            places(workers=size.workers, producers=size.producers),
        )
        ending.callback(_end_all, crew)
        notes = Notes(folder)
        stage = Stage(home, folder, postgres, valkey, world, links, crew, notes, disk, CALM)
        stage.blow()
        yield stage


def _end_all(crew: Crew) -> None:
    crew.hold()
    for member in crew.past:
        if member.lives:
            with suppress(subprocess.TimeoutExpired):
                member.end()


def prepare(postgres: Postgres) -> None:
    """Make the ledger."""
    engine = open_engine(postgres.url, connections=1, name=HARNESS)
    migrate(engine)
    engine.dispose()


def key_of(postgres: Postgres, valkey: Valkey) -> str:
    """Make a key by which whoever asks over HTTP may ask as often as he likes."""
    producer = Producer(Settings(database_url=postgres.url, redis_url=valkey.url, tenant=RUN))
    _, key = producer.keys.create("storm", ["enqueue", "read", "operate"], rate_per_second=FASTEST_RATE, who=HARNESS)
    producer.close()
    return key


def free_port() -> int:
    """Return a port of loopback that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def plain(url: str) -> str:
    """Return a URL as the driver alone reads it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def own_disk(mount: Path) -> Iterator[Path | None]:
    """Give a small disk of its own, which can be filled; None where this user may mount none."""
    mount.mkdir()
    image = mount.with_suffix(".image")
    made = [["truncate", "-s", DISK, str(image)], ["mkfs.ext4", "-q", "-m", "0", str(image)]]
    ways = [
        [*made, ["mount", "-o", "loop", str(image), str(mount)]],
        [["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(mount)]],
    ]
    if not any(_done(way) for way in ways):
        yield None
        return
    try:
        yield mount
    finally:
        _done([["umount", str(mount)]])
        image.unlink(missing_ok=True)


def can_have_a_disk() -> bool:
    """Whether this user may mount one here."""
    with tempfile.TemporaryDirectory() as folder, own_disk(Path(folder) / "disk") as disk:
        return disk is not None


def _done(commands: Sequence[Sequence[str]]) -> bool:
    """Run commands for as long as they succeed; return whether all did."""
    try:
        return all(subprocess.run(each, capture_output=True, check=False).returncode == 0 for each in commands)
    except OSError:
        return False

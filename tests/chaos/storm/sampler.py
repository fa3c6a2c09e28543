"""How everybody does, every second of a storm: one line of `samples.jsonl` each.

{"at": 1700000000.0, "processes": [{"name": "worker-1.1", "pid": 7, "rss_kib": 90000, "fds": 40, "threads": 12,
 "connections": 9}], "postgres": {"host:7 lease": 1}, "redis_clients": 20, "states": {"queued": 3, "succeeded": 90},
 "done": 90}

Processes are the crew's, their children, and what they stand on: servers, links, the world outside; `connections` are
all the sockets that one has. Where a server is away, its part is empty, `redis_clients` -1, and `done` what it was.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import redis

from producer.ledger.states import CLOSED
from tests.chaos.storm.stage import HARNESS, Stage, plain

FILE = "samples.jsonl"
EVERY_SECONDS = 1.0
# A server that does not answer a look within this is away.
PATIENCE_MILLISECONDS = 800
SESSIONS = """
SELECT application_name AS name, count(*) AS held FROM pg_stat_activity
WHERE backend_type = 'client backend' AND application_name NOT LIKE %(own)s GROUP BY 1
"""
STATES = "SELECT state, count(*) AS held FROM jobs GROUP BY 1"


class Sampler:
    """A thread that looks, from `start` to `stop`."""

    def __init__(self, stage: Stage) -> None:
        """Look at nothing yet."""
        self._stage = stage
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._known: dict[int, psutil.Process] = {}
        self._ledger: Any = None
        self.done = self.accepted = 0

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more, and let go of every connection."""
        self._stopping.set()
        self._thread.join()
        if self._ledger is not None:
            self._ledger.close()

    def _run(self) -> None:
        with (self._stage.folder / FILE).open("w") as file:
            while not self._stopping.wait(EVERY_SECONDS):
                file.write(json.dumps(self._sample()) + "\n")
                file.flush()

    def _sample(self) -> dict[str, Any]:
        sample: dict[str, Any] = {"at": time.time(), "processes": self._processes(), "postgres": {}, "states": {}}
        with suppress(psycopg2.Error):
            sample |= self._look_at_postgres()
        states = sample["states"]
        if states:
            self.done = sum(count for state, count in states.items() if state in CLOSED)
            self.accepted = sum(states.values())
        return sample | {"redis_clients": self._redis_clients(), "done": self.done}

    def _processes(self) -> list[dict[str, Any]]:
        found = []
        for name, pid in self._watched():
            with suppress(psutil.Error, OSError):
                process = self._known.get(pid)
                if process is None or not process.is_running():  # its number may be another's by now
                    process = self._known[pid] = psutil.Process(pid)
                with process.oneshot():
                    facts = {"rss_kib": process.memory_info().rss // 1024, "threads": process.num_threads()}
                found.append({"name": name, "pid": pid, **facts, **_open_files(pid)})
        return found

    def _watched(self) -> Iterator[tuple[str, int]]:
        """Yield everybody's name and process."""
        stage = self._stage
        for place in list(stage.crew.places):
            member = place.member
            if member is None or not member.lives:
                continue
            yield member.name, member.pid
            if place.prefork:
                yield from ((f"{place.name}, child.{child.pid}", child.pid) for child in member.children)
        yield from ((f"{server.title.lower()}.{server.pid}", server.pid) for server in (stage.postgres, stage.valkey))
        yield f"effect server.{stage.world.pid}", stage.world.pid
        yield from ((f"link to {server}.{link.pid}", link.pid) for server, link in stage.links.items())

    def _look_at_postgres(self) -> dict[str, Any]:
        if self._ledger is None or self._ledger.closed:
            self._ledger = self._connect()
        try:
            with self._ledger.cursor() as cursor:
                cursor.execute(SESSIONS, {"own": f"{HARNESS}%"})
                sessions = dict(cursor.fetchall())
                cursor.execute(STATES)
                return {"postgres": sessions, "states": dict(cursor.fetchall())}
        except psycopg2.Error:
            self._ledger.close()
            raise

    def _connect(self) -> Any:
        name = f"{HARNESS} sampler"
        own = psycopg2.connect(plain(self._stage.postgres.url), application_name=name, connect_timeout=2)
        own.autocommit = True
        with own.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {PATIENCE_MILLISECONDS}")
        return own

    def _redis_clients(self) -> int:
        try:
            with self._stage.redis(seconds=PATIENCE_MILLISECONDS / 1000) as client:
                return int(client.info("clients")["connected_clients"]) - 1
        except (redis.RedisError, OSError):
            return -1


def _open_files(pid: int) -> dict[str, int]:
    """Count what a process has open, and how much of that are sockets."""
    held = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            held.append(str(each.readlink()))
    return {"fds": len(held), "connections": sum(name.startswith("socket:") for name in held)}

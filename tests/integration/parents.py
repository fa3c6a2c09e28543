"""What the tests of the development servers look with: processes that run them, and what is in them afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from worker.dev import _processes
from worker.dev.servers import Servers

DEADLINE_SECONDS = 20.0
# Holds both servers until its standard input ends or a signal comes; says where they are once they answer.
PARENT = """
import dataclasses, json, sys
from pathlib import Path
from worker.dev.servers import servers
with servers(Path(sys.argv[1])) as running:
    print(json.dumps(dataclasses.asdict(running), default=str), flush=True)
    sys.stdin.read()
"""
# As PARENT, with a child forked without exec that outlives it, as a prefork pool's would.
FORKING_PARENT = PARENT.replace("    sys.stdin.read()", "    import os; os.fork(); sys.stdin.read()")
# The line is printed within the `try`: whoever reads it may interrupt at once.
SURVIVING_INTERRUPT = """
import dataclasses, json, sys
from pathlib import Path
from worker.dev.servers import servers
with servers(Path(sys.argv[1])) as running:
    try:
        print(json.dumps(dataclasses.asdict(running), default=str), flush=True)
        sys.stdin.read()
    except KeyboardInterrupt:
        print("survived", flush=True)
        sys.stdin.read()
"""
# As PARENT, after a forked child has left the block.
LEAVING_CHILD = PARENT.replace(
    "    print", "    import os; (child := os.fork()) or sys.exit(); os.waitpid(child, 0); print"
)


def until(condition: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


@contextmanager
def parent(folder: Path, script: str = PARENT) -> Iterator[subprocess.Popen[str]]:
    """A process of its own, in a group of its own, that runs both servers."""
    command = [sys.executable, "-c", script, str(folder)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.stdin is not None:
                process.stdin.close()
            process.wait(DEADLINE_SECONDS)


def running_in(process: subprocess.Popen[str]) -> Servers:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr and process.stderr.read()
    facts = json.loads(line)
    return Servers(**{**facts, "folder": Path(facts["folder"])})


def sql(url: str, statement: str) -> Any:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        return result.scalar() if result.returns_rows else None


def valkey_at(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def address_of(url: str) -> str:
    scheme, _, rest = url.replace("+psycopg2", "").partition("://")
    return f"{scheme}://surefoot@{rest.rpartition('@')[2]}"


def remember(running: Servers) -> None:
    sql(running.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with valkey_at(running.redis_url) as client:
        client.set("kept", "42")


def assert_remembered(running: Servers) -> None:
    assert sql(running.database_url, "SELECT answer FROM kept") == 42
    with valkey_at(running.redis_url) as client:
        assert client.get("kept") == "42"


def lives(pid: int) -> bool:
    process = _processes.handle(pid)
    return process is not None and _processes.goes_on(process)


def keepers_of(running: Servers) -> list[int]:
    return [
        int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        for pid in (running.postgres_pid, running.redis_pid)
    ]


def processes_naming(folder: Path, *, but: int) -> list[int]:
    """Who carries `folder` in its command line: servers, keepers and initdb."""
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(folder) in cmdline.read_text() and int(cmdline.parent.name) not in (but, os.getpid()):
                found.append(int(cmdline.parent.name))
    return found


def log_of(folder: Path, server: str) -> str:
    return (folder / server / "log").read_text()

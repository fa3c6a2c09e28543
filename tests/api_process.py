"""A real API process for tests."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from producer import Settings
from tests.houses import ROOT, STOP_SECONDS, until

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Api:
    """One `surefoot api`, and a client for it that has no key."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    client: httpx.Client

    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Its lines of one event."""
        return [line for line in self.lines() if line.get("event") == name]


def bearer(key: str) -> dict[str, str]:
    """The header by which a key comes along."""
    return {"Authorization": f"Bearer {key}"}


@contextmanager
def api_of(settings: Settings, folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Api]:
    """Serve a ledger over HTTP, on a free port."""
    log = folder / f"api-{next(_numbers)}.log"
    told = {
        "SUREFOOT_DATABASE_URL": settings.database_url,
        "SUREFOOT_REDIS_URL": settings.redis_url,
        "SUREFOOT_API_PORT": "0",
    }
    command = [str(Path(sys.executable).with_name("surefoot")), "api"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **told, **(environment or {})}, stderr=output)
    try:
        url = until(lambda: _url(log, process), seconds=30)
        with httpx.Client(base_url=url, timeout=30) as client:
            yield Api(url, process, log, client)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)


def _url(log: Path, process: subprocess.Popen[bytes]) -> str:
    """Where it listens; empty until it has said so."""
    assert process.poll() is None, f"the API has ended: {log.read_text()}"
    said = [line for line in log.read_text().splitlines() if '"api.listening"' in line and line.endswith("}")]
    return f"http://127.0.0.1:{json.loads(said[0])['port']}" if said else ""

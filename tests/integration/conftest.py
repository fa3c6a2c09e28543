"""A folder of development servers that has had its first start, the slow one; Redis alone; a bell, and an announcer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from producer.announce import Announcer
from producer.ring import Bell
from tests.conftest import numbers
from worker.dev.servers import Postgres, Servers, Valkey


@pytest.fixture(scope="session")
def made_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with Postgres(folder):
        return folder


@pytest.fixture
def folder(made_folder: Path, tmp_path: Path) -> Path:
    """A copy, so that a test's first start is the folder's second."""
    shutil.copytree(
        made_folder / "postgres", tmp_path / "postgres", ignore=shutil.ignore_patterns("port", "token", "lock", "log")
    )
    return tmp_path


@pytest.fixture
def redis_url(dev_servers: Servers) -> str:
    """An empty Redis number of this test's own."""
    url = dev_servers.redis_url.rsplit("/", 1)[0] + f"/{next(numbers) % 15 + 1}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server of this test's own, to be killed, stopped and emptied."""
    with Valkey(tmp_path) as server:
        yield server


@pytest.fixture
def bell(redis_url: str) -> Iterator[Bell]:
    made = Bell(redis_url, timeout_seconds=5.0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server of this module's own."""
    with Valkey(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture
def client(valkey: Valkey) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey.url) as made:
        yield made


@pytest.fixture
def announcer(valkey: Valkey) -> Iterator[Announcer]:
    made = Announcer(valkey.url)
    yield made
    made.close()

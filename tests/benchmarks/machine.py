"""What the figures were taken on: without it they say nothing. Neither paths nor host names."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
import psycopg2
import redis

from tests.benchmarks.stage import Stage
from tests.houses import ROOT

PACKAGES = ("celery", "kombu", "redis", "SQLAlchemy", "psycopg2-binary")
LOOK_SECONDS = 3.0
SYNCS = 200
# What Postgres writes at least for one commit.
SYNC_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine, at one moment.

    Attributes:
        cores: Those that this process may use.
        memory_gib: Of the whole machine.
        sync_us: Median time of one write that waits for the disk, in microseconds.
        busy_cores: What others took of them in the seconds before the run.
        versions: Of everything that the figures hang on, by name.
    """

    cores: int
    cpu: str
    memory_gib: float
    kernel: str
    filesystem: str
    sync_us: float
    busy_cores: float
    versions: dict[str, str]


def look(stage: Stage) -> Machine:
    """Describe this machine and its servers; takes a few seconds."""
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        cpu=_cpu(),
        memory_gib=psutil.virtual_memory().total / 2**30,
        kernel=f"{platform.system()} {platform.release()}",
        filesystem=_filesystem(stage.folder),
        sync_us=_sync_us(stage.folder),
        busy_cores=psutil.cpu_percent(LOOK_SECONDS) / 100 * (os.cpu_count() or 1),
        versions=_versions(stage),
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _filesystem(folder: Path) -> str:
    """Return the type of the file system that holds `folder`: on a tmpfs no figure here would mean anything."""
    mounts = [m for m in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(m.mountpoint)]
    return max(mounts, key=lambda mount: len(mount.mountpoint)).fstype if mounts else "unknown"


def _sync_us(folder: Path) -> float:
    taken = []
    path = folder / "sync"
    with path.open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            file.write(b"\0" * SYNC_BYTES)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(taken) * 1e6


def _versions(stage: Stage) -> dict[str, str]:
    with redis.Redis.from_url(stage.redis_url) as client:
        told = client.info("server")
    valkey = told.get("valkey_version")
    return {
        "Surefoot": f"{version('surefoot')} ({_revision()})",
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "libpq": str(psycopg2.extensions.libpq_version()),
        "Postgres": stage.query("SHOW server_version")[0][0],
        "Valkey" if valkey else "Redis": valkey or told["redis_version"],
    }


def _revision() -> str:
    """Return the commit, with a plus sign where the checkout differs from it."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return git.stdout.strip() or "no checkout"

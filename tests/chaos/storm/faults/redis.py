"""Faults of Redis. It bites where somebody loses a connection, an answer or what was kept, or is refused a write."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis

from tests.chaos.patience import until
from tests.chaos.storm.faults.unread import unread_bytes
from tests.chaos.storm.notes import Strike
from tests.chaos.storm.stage import Stage

REDIS = "redis"
BACK_SECONDS = 20.0
# What the harness's own clients say: this module's, and the sampler's.
OURS = ("client|list", "info", "client|setinfo", "NULL")


def kill(stage: Stage, strike: Strike) -> bool | None:
    """Kill it, and start it again with its data."""
    bit = _clients(stage) > 0
    strike.on(REDIS)
    stage.valkey.kill()
    time.sleep(strike.planned.seconds)
    stage.valkey.start()
    return bit


def flush(stage: Stage, strike: Strike) -> bool | None:
    """Empty it."""
    with stage.redis() as client:
        held = client.dbsize()
        strike.on(REDIS)
        client.flushall()
    return bool(held)


def pause(stage: Stage, strike: Strike) -> bool | None:
    """Have it answer nobody for a while."""
    seconds = strike.planned.seconds
    with stage.redis(seconds=seconds + BACK_SECONDS) as client:
        others = _clients(stage)
        strike.on(REDIS)
        began = time.monotonic()
        client.execute_command("CLIENT", "PAUSE", int(seconds * 1000), "ALL")
        client.ping()
    return others > 0 and time.monotonic() - began > seconds / 2


def stop(stage: Stage, strike: Strike) -> bool | None:
    """Stop its process; connections to it stand, and nothing comes back."""
    strike.on(REDIS)
    os.kill(stage.valkey.pid, signal.SIGSTOP)
    time.sleep(strike.planned.seconds)
    bit = unread_bytes(stage.valkey.port) > 0
    os.kill(stage.valkey.pid, signal.SIGCONT)
    return bit


def full(stage: Stage, strike: Strike) -> bool | None:
    """Have it refuse every write for want of memory."""
    with stage.redis() as client:
        limit = client.config_get("maxmemory")["maxmemory"]
        before = _refused(client)
        strike.on(REDIS)
        client.config_set("maxmemory", 1)
        time.sleep(strike.planned.seconds)
        client.config_set("maxmemory", limit)
        return _refused(client) > before


def old_dump(stage: Stage, strike: Strike) -> bool | None:
    """Kill it, and start it from what it held before, a fault or two ago; it bites where that is something else."""
    data, copy = stage.valkey.home / "data", stage.home / "redis-copy"
    strike.on(REDIS)
    before = _all_of_it(stage)
    stage.valkey.kill()
    if copy.exists():
        shutil.rmtree(data)
        shutil.copytree(copy, data)
    stage.valkey.start()
    bit = copy.exists() and _all_of_it(stage) != before
    keep_copy(stage)
    return bit


def keep_copy(stage: Stage) -> None:
    """Keep what Redis holds now, for `old_dump`; what is being written meanwhile may be cut off."""
    data, copy = stage.valkey.home / "data", stage.home / "redis-copy"
    if copy.exists():
        shutil.rmtree(copy)
    shutil.copytree(data, copy, copy_function=_copy_if_there)
    for each in copy.rglob("*"):
        owner = data.stat()
        os.chown(each, owner.st_uid, owner.st_gid)


def _copy_if_there(source: str, target: str) -> str:
    if Path(source).exists():  # a file that is written anew has another name until it is whole
        shutil.copy2(source, target)
    return target


def _clients(stage: Stage) -> int:
    """Return how many are connected beside those who just ask this."""

    def all_of_them() -> list[dict[str, Any]]:
        with suppress(redis.RedisError), stage.redis() as client:
            return list(client.client_list())
        return []  # away just now

    found = until(all_of_them, seconds=BACK_SECONDS, what="Redis")
    return sum(each["cmd"] not in OURS for each in found)


def _all_of_it(stage: Stage) -> dict[bytes, bytes | None]:
    """Return every key with its value, as Redis itself writes them down."""
    with stage.redis() as client:
        keys = list(client.scan_iter())
        with client.pipeline(transaction=False) as each:
            for key in keys:
                each.dump(key)
            return dict(zip(keys, each.execute(), strict=True))


def _refused(client: Any) -> int:
    found: int = client.info("errorstats").get("errorstat_OOM", {"count": 0})["count"]
    return found


FAULTS: Mapping[str, Callable[[Stage, Strike], bool | None]] = {
    "redis_kill": kill,
    "redis_flush": flush,
    "redis_pause": pause,
    "redis_stop": stop,
    "redis_full": full,
    "redis_old_dump": old_dump,
}

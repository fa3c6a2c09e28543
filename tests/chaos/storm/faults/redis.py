"""Faults of Redis. It bites where somebody is connected, or where a write of theirs is refused."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.chaos.patience import until
from tests.chaos.storm.notes import Strike
from tests.chaos.storm.stage import Stage

REDIS = "redis"
BACK_SECONDS = 20.0


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
    bit = _clients(stage) > 0
    strike.on(REDIS)
    os.kill(stage.valkey.pid, signal.SIGSTOP)
    time.sleep(strike.planned.seconds)
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
    """Kill it, and start it from what it held before, a fault or two ago."""
    data, copy = stage.valkey.home / "data", stage.home / "redis-copy"
    strike.on(REDIS)
    stage.valkey.kill()
    if copy.exists():
        shutil.rmtree(data)
        shutil.copytree(copy, data)
    stage.valkey.start()
    with stage.redis() as client:
        held = client.dbsize()
    keep_copy(stage)
    return bool(held)


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
    """Return how many are connected beside us."""

    def answers() -> list[dict[str, Any]]:
        with stage.redis() as client:
            return [each for each in client.client_list() if each.get("cmd") != "client|list"]

    return len(until(lambda: answers() or [{}], seconds=BACK_SECONDS, what="Redis"))


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

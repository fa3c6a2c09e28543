"""Faults of Postgres as a whole: stopped, killed, suspended, out of connections and out of disk."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import psycopg2

from tests.chaos.patience import until
from tests.chaos.storm.faults.unread import unread_bytes
from tests.chaos.storm.notes import Strike
from tests.chaos.storm.stage import HARNESS, Stage, plain

POSTGRES = "postgres"
DOWN_SECONDS = 30.0
# Of the crew's sessions, while no other can be had.
LOST_AT_ONCE = 4
TERMINATED = """
SELECT count(pg_terminate_backend(pid)) AS ended FROM (
  SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name NOT LIKE %(own)s
  ORDER BY md5(pid::text || %(salt)s) LIMIT %(most)s
) AS victims
"""
SESSIONS = """
SELECT count(*) AS held FROM pg_stat_activity
WHERE backend_type = 'client backend' AND application_name NOT LIKE %(own)s
"""
REFUSED, NO_SPACE = "too many clients already", "No space left on device"
OWN = f"{HARNESS}%"


def immediate(stage: Stage, strike: Strike) -> bool | None:
    """Have it stop at once, as `pg_ctl -m immediate` does; the next start recovers."""
    bit = sessions(stage) > 0
    strike.on(POSTGRES)
    os.kill(stage.postgres.pid, signal.SIGQUIT)
    until(lambda: not stage.postgres.running, seconds=DOWN_SECONDS, what="the stop")
    stage.postgres.start()
    return bit


def restart(stage: Stage, strike: Strike) -> bool | None:
    """Stop it fast, and start it."""
    bit = sessions(stage) > 0
    strike.on(POSTGRES)
    stage.postgres.stop()
    stage.postgres.start()
    return bit


def kill(stage: Stage, strike: Strike) -> bool | None:
    """Kill all of its processes; what was not flushed is lost, as commits that did not wait for it."""
    bit = sessions(stage) > 0
    strike.on(POSTGRES)
    stage.postgres.kill()
    stage.postgres.start()
    return bit


def stop(stage: Stage, strike: Strike) -> bool | None:
    """Stop all of its processes: connections stand, the kernel takes what is sent, and nothing comes back."""
    strike.on(POSTGRES)
    postmaster = psutil.Process(stage.postgres.pid)
    stopped = [postmaster]
    postmaster.suspend()
    stopped += postmaster.children(recursive=True)
    for each in stopped[1:]:
        with suppress(psutil.NoSuchProcess):
            each.suspend()
    time.sleep(strike.planned.seconds)
    bit = unread_bytes(stage.postgres.port) > 0
    for each in reversed(stopped):
        with suppress(psutil.NoSuchProcess):
            each.resume()
    return bit


def terminate(stage: Stage, strike: Strike) -> bool | None:
    """End half of the sessions, whatever they are doing."""
    strike.on(POSTGRES)
    most = max(1, sessions(stage) // 2)
    return end_sessions(stage, most, salt=str(strike.planned.number)) > 0


def full(stage: Stage, strike: Strike) -> bool | None:
    """Take every connection that is left, and end some of the crew's, which then get no others."""
    before = in_log(stage, REFUSED)
    with ExitStack() as taken, stage.connection(name=f"{HARNESS} own") as own, own.cursor() as cursor:
        strike.on(POSTGRES)
        own_refusals = _take_all(stage, taken)
        arguments = {"own": OWN, "salt": str(strike.planned.number), "most": LOST_AT_ONCE}
        cursor.execute(TERMINATED, arguments)
        own_refusals += _take_all(stage, taken)
        time.sleep(strike.planned.seconds)
        return in_log(stage, REFUSED) - before > own_refusals


def disk(stage: Stage, strike: Strike) -> bool | None:
    """Fill its disk; where that ends it, start it once there is room again."""
    if stage.disk is None:
        return None
    filler, before = stage.disk / "filler", in_log(stage, NO_SPACE)
    strike.on(POSTGRES)
    free = shutil.disk_usage(stage.disk).free
    try:
        _fill(filler, free)
        time.sleep(strike.planned.seconds)
    finally:
        filler.unlink(missing_ok=True)
        stage.postgres.start()  # does nothing where it runs
    return in_log(stage, NO_SPACE) > before


def _fill(filler: Path, free: int) -> None:
    file = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        with suppress(OSError):
            os.posix_fallocate(file, 0, free)
        with suppress(OSError):  # to the last byte
            while True:
                os.write(file, b"0" * 4096)
    finally:
        os.close(file)


def _take_all(stage: Stage, taken: ExitStack) -> int:
    """Open connections until there is none left; return how many were refused, one or none."""
    while True:
        try:
            own = psycopg2.connect(plain(stage.postgres.url), application_name=HARNESS, connect_timeout=5)
        except psycopg2.OperationalError as error:
            return REFUSED in str(error)
        taken.callback(own.close)


def sessions(stage: Stage) -> int:
    """Return how many sessions the crew has."""
    return int(stage.ask(SESSIONS, {"own": OWN})[0]["held"])


def end_sessions(stage: Stage, most: int, *, salt: str) -> int:
    """End at most so many of them; return how many."""
    return int(stage.ask(TERMINATED, {"own": OWN, "salt": salt, "most": most})[0]["ended"])


def in_log(stage: Stage, words: str) -> int:
    """Return how often its log has these words."""
    return stage.postgres.log_path.read_text(errors="replace").count(words)


FAULTS: Mapping[str, Callable[[Stage, Strike], bool | None]] = {
    "postgres_immediate": immediate,
    "postgres_restart": restart,
    "postgres_kill": kill,
    "postgres_stop": stop,
    "postgres_terminate": terminate,
    "postgres_full": full,
    "postgres_disk": disk,
}

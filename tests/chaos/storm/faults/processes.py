"""Faults of workers: killed, stopped, told to end, replaced, and with a clock that jumps."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import psutil
import psycopg2

from tests.chaos.patience import NotReached, until
from tests.chaos.processes import Member
from tests.chaos.storm.clock import felt_in
from tests.chaos.storm.crew import NEXT, NOW, Place, clock_of
from tests.chaos.storm.notes import Strike
from tests.chaos.storm.stage import Stage

# How long a victim that has jobs is waited for.
BUSY_SECONDS = 8.0
# How long a ledger is waited for that could say so.
LEDGER_SECONDS, LEDGER_PAUSE_SECONDS = 12.0, 0.2
# An attempt may take ten seconds, and what it wrote may wait for a ledger that is away.
END_SECONDS = 40.0
START_SECONDS = 20.0
FELT_SECONDS = 3.0
LONGEST_JUMP_SECONDS = 86_400.0

HELD = "SELECT count(*) AS held FROM jobs WHERE lease_owner = ANY(%(owners)s)"


def kill_worker(stage: Stage, strike: Strike) -> bool | None:
    """Kill a worker's first process alone."""
    with _victim(stage, strike, lambda place: not place.prefork) as place:
        return None if place is None else _kill(stage, strike, place, "sigkill")


def kill_group(stage: Stage, strike: Strike) -> bool | None:
    """Kill a worker and all that it started."""
    with _victim(stage, strike) as place:
        return None if place is None else _kill(stage, strike, place, "group_kill")


def kill_child(stage: Stage, strike: Strike) -> bool | None:
    """Kill a child of a worker that performs in child processes, as a machine without memory does."""
    with _victim(stage, strike, lambda place: place.prefork) as place:
        if place is None:
            return None
        member = _member(place)
        children = psutil.Process(member.pid).children()
        if not children:
            return False
        child = children[int(strike.planned.choice * 1000) % len(children)]
        bit = _has_jobs(stage, member, [child.pid])
        strike.on(member.name)
        strike.detail("sigkill", "begin", member.name, child.pid)
        child.kill()
        strike.detail("sigkill", "end", member.name, child.pid)
        return bit


def stop_worker(stage: Stage, strike: Strike) -> bool | None:
    """Stop a worker beyond its lease; it comes back with all that it holds."""
    with _victim(stage, strike) as place:
        if place is None:
            return None
        member = _member(place)
        bit = _has_jobs(stage, member)
        strike.on(member.name)
        strike.detail("sigstop", "begin", member.name, member.pid)
        member.signal_group(signal.SIGSTOP)
        time.sleep(strike.planned.seconds)
        strike.detail("sigstop", "end", member.name, member.pid)
        member.signal_group(signal.SIGCONT)
        return bit


def end_worker(stage: Stage, strike: Strike) -> bool | None:
    """Tell a worker to end."""
    with _victim(stage, strike) as place:
        return None if place is None else _end(stage, strike, place, signal.SIGTERM)


def hurry_worker(stage: Stage, strike: Strike) -> bool | None:
    """Tell a worker to end without waiting for its jobs."""
    with _victim(stage, strike) as place:
        return None if place is None else _end(stage, strike, place, signal.SIGQUIT)


def rolling_restart(stage: Stage, strike: Strike) -> bool | None:
    """Tell one worker after the other to end, the next one once its successor takes jobs."""
    strike.on("workers")
    ended = 0
    for name in [place.name for place in stage.crew.workers]:
        with stage.crew.victim(lambda place, name=name: place.name == name, 0.0) as place:  # type: ignore[misc]
            if place is not None:
                ended += _end(stage, strike, place, signal.SIGTERM) is not None
                _start(stage, place)
    return ended > 1


def version_skew(stage: Stage, strike: Strike) -> bool | None:
    """Have a worker of the other build in a worker's place.

    The first worker stays of the current build, the last is of the next one from the first time on.
    """
    last = stage.crew.workers[-1]
    others = [last.name] if last.build == NOW else ["worker-2", "worker-3"]
    with _victim(stage, strike, lambda place: place.name in others) as place:
        if place is None:
            return None
        _end(stage, strike, place, signal.SIGTERM)
        place.build = NEXT if place.build == NOW else NOW
        return _start(stage, place)


def clock_jump(stage: Stage, strike: Strike) -> bool | None:
    """Have a worker's wall clock jump, forth or back, and jump back later."""
    with _victim(stage, strike) as place:
        if place is None:
            return None
        member = _member(place)
        offset = round((strike.planned.choice * 2 - 1) * LONGEST_JUMP_SECONDS, 1)
        clock = clock_of(stage.folder, member.name)
        strike.on(member.name)
        clock.write_text(f"{offset}")
        try:
            bit = _comes(lambda: felt_in(clock).exists() and felt_in(clock).read_text() == f"{offset}", FELT_SECONDS)
            time.sleep(strike.planned.seconds)
        finally:
            clock.write_text("0.0")
        return bit


def _victim(stage: Stage, strike: Strike, suits: Callable[[Place], bool] = lambda _: True) -> Any:
    return stage.crew.victim(lambda place: place.role == "worker" and suits(place), strike.planned.choice)


def _kill(stage: Stage, strike: Strike, place: Place, fault: str) -> bool | None:
    member = _member(place)
    bit = _has_jobs(stage, member)
    strike.on(member.name)
    strike.detail(fault, "begin", member.name, member.pid)
    if fault == "group_kill":
        member.end()
    else:
        member.process.kill()
        member.process.wait()
    strike.detail(fault, "end", member.name, member.pid)
    return bit


def _end(stage: Stage, strike: Strike, place: Place, how: signal.Signals) -> bool | None:
    """Tell a worker to end, and wait until it has; one that has not by then is an oddity, and killed."""
    member = _member(place)
    bit = _has_jobs(stage, member)
    if strike.target is None:
        strike.on(member.name)
    fault = how.name.lower()
    strike.detail(fault, "begin", member.name, member.pid)
    member.process.send_signal(how)
    try:
        member.process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        stage.oddities.append(f"{member.name}, told to end by {how.name}, has not ended within {END_SECONDS:g} s")
        strike.detail("group_kill", "begin", member.name, member.pid)
        member.end()
    strike.detail(fault, "end", member.name, member.pid)
    return bit


def _start(stage: Stage, place: Place) -> bool:
    member = stage.crew.restart(place)
    return _comes(lambda: member.said("worker.started"), START_SECONDS)


def _member(place: Place) -> Member:
    assert place.member is not None
    return place.member


def _has_jobs(stage: Stage, member: Member, pids: list[int] | None = None) -> bool | None:
    """Wait a little until the processes have jobs; return whether they do, None where the ledger cannot say."""
    with suppress(psutil.Error):
        pids = pids or [member.pid, *(child.pid for child in psutil.Process(member.pid).children())]
    owners = [f"{socket.gethostname()}:{pid}" for pid in pids or [member.pid]]
    latest = time.monotonic() + LEDGER_SECONDS
    while time.monotonic() < latest:
        try:
            with stage.connection() as own, own.cursor() as cursor:

                def held() -> bool:
                    cursor.execute(HELD, {"owners": owners})
                    return bool(cursor.fetchone()[0])

                return _comes(held, BUSY_SECONDS)
        except psycopg2.Error:  # another lane has taken it away
            time.sleep(LEDGER_PAUSE_SECONDS)
    return None


def _comes(condition: Callable[[], bool], seconds: float) -> bool:
    try:
        return until(condition, seconds=seconds, what="it")
    except NotReached:
        return False


FAULTS: Mapping[str, Callable[[Stage, Strike], bool | None]] = {
    "kill_worker": kill_worker,
    "kill_child": kill_child,
    "kill_group": kill_group,
    "stop_worker": stop_worker,
    "end_worker": end_worker,
    "hurry_worker": hurry_worker,
    "rolling_restart": rolling_restart,
    "version_skew": version_skew,
    "clock_jump": clock_jump,
}

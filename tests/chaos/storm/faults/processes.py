"""Faults of workers: killed, stopped, told to end, replaced, and with a clock that jumps."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

import psutil
import psycopg2

from producer.ledger.states import LEASED, in_sql
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
# By one who is impatient.
TOLD_TIMES, TOLD_PAUSE_SECONDS = 3, 0.2

# Less than a world waits before it takes what it has not heard of for what never came; see the storm's actions.
LONGEST_STOP_SECONDS = 11.0
LOOK_SECONDS = 0.02

# As the ledger's indexes have them: who looks at all the jobs of a storm, fifty times a second, is a fault of its own.
HELD = f"""
SELECT DISTINCT lease_owner FROM jobs WHERE state IN ({in_sql(LEASED)}) AND lease_owner = ANY(%(owners)s)
"""
RUNNING = f"""
SELECT CAST(id AS text), fence FROM jobs
WHERE state IN ({in_sql(LEASED)}) AND state = 'running' AND lease_owner = ANY(%(owners)s)
"""
FENCES = "SELECT CAST(id AS text), fence FROM jobs WHERE id = ANY(CAST(%(ids)s AS uuid[]))"
T = TypeVar("T")


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
        children = {_owner(child.pid): child for child in member.children}
        if not children:
            return False
        busy = _until(stage, partial(_busy, owners=list(children)), BUSY_SECONDS)
        some = sorted(busy or children)
        child, bit = children[some[int(strike.planned.choice * len(some))]], None if busy is None else bool(busy)
        strike.on(member.name)
        strike.detail("sigkill", "begin", member.name, child.pid)
        try:
            child.kill()
        except psutil.NoSuchProcess:  # its worker has just been told to end, or replaced it
            bit = False
        strike.detail("sigkill", "end", member.name, child.pid)
        return bit


def stop_worker(stage: Stage, strike: Strike) -> bool | None:
    """Stop a worker amid jobs, until they are somebody else's; it comes back with all that it has of them."""
    with _victim(stage, strike) as place:
        if place is None:
            return None
        member = _member(place)
        fences = _until(stage, partial(_fences, owners=_owners(member)), BUSY_SECONDS) or {}
        strike.on(member.name)
        strike.detail("sigstop", "begin", member.name, member.pid)
        member.signal_group(signal.SIGSTOP)
        with ThreadPoolExecutor(1) as looking:  # which a ledger that is away must not prolong
            taken = looking.submit(_until, stage, partial(_are_taken, fences=fences), LONGEST_STOP_SECONDS)
            time.sleep(strike.planned.seconds)
            wait([taken], LONGEST_STOP_SECONDS - strike.planned.seconds)
            strike.detail("sigstop", "end", member.name, member.pid)
            member.signal_group(signal.SIGCONT)
        return taken.result()


def end_worker(stage: Stage, strike: Strike) -> bool | None:
    """Tell a worker to end."""
    with _victim(stage, strike) as place:
        return None if place is None else _end(stage, strike, place, signal.SIGTERM)


def hurry_worker(stage: Stage, strike: Strike) -> bool | None:
    """Tell a worker to end without waiting for its jobs."""
    with _victim(stage, strike) as place:
        return None if place is None else _end(stage, strike, place, signal.SIGQUIT)


def end_all_workers(stage: Stage, strike: Strike) -> bool | None:
    """Tell all workers to end at the same time, and tell them again while they do, as one who is impatient."""
    with ExitStack() as held:
        names = [place.name for place in stage.crew.workers]
        found = [held.enter_context(stage.crew.victim(partial(_is_called, name), 0.0)) for name in names]
        members = [_member(place) for place in found if place is not None]
        busy = [_has_jobs(stage, member) for member in members]
        strike.on("workers")
        for member in members:
            strike.detail("sigterm", "begin", member.name, member.pid)
        for _ in range(TOLD_TIMES):
            for member in members:
                member.process.send_signal(signal.SIGTERM)
            time.sleep(TOLD_PAUSE_SECONDS)
        for member in members:
            _await_end(stage, strike, member, signal.SIGTERM)
        return sum(each is True for each in busy) > 1


def _is_called(name: str, place: Place) -> bool:
    return place.name == name


def rolling_restart(stage: Stage, strike: Strike) -> bool | None:
    """Tell one worker after the other to end, the next one once its successor takes jobs."""
    strike.on("workers")
    ended = 0
    for name in [place.name for place in stage.crew.workers]:
        with stage.crew.victim(partial(_is_called, name), 0.0) as place:
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
    """Tell a worker to end, and wait until it has."""
    member = _member(place)
    bit = _has_jobs(stage, member)
    if strike.target is None:
        strike.on(member.name)
    strike.detail(how.name.lower(), "begin", member.name, member.pid)
    member.process.send_signal(how)
    _await_end(stage, strike, member, how)
    return bit


def _await_end(stage: Stage, strike: Strike, member: Member, how: signal.Signals) -> None:
    """Wait until a worker has ended that was told to; one that has not by then is an oddity, and killed."""
    try:
        member.process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        stage.odd(f"{member.name}, told to end by {how.name}, has not ended within {END_SECONDS:g} s")
        strike.detail("group_kill", "begin", member.name, member.pid)
        member.end()
    strike.detail(how.name.lower(), "end", member.name, member.pid)


def _start(stage: Stage, place: Place) -> bool:
    member = stage.crew.restart(place)
    return _comes(lambda: member.said("worker.started"), START_SECONDS)


def _member(place: Place) -> Member:
    assert place.member is not None
    return place.member


def _has_jobs(stage: Stage, member: Member) -> bool | None:
    """Wait a little until a worker has jobs; return whether it does, None where the ledger cannot say."""
    busy = _until(stage, partial(_busy, owners=_owners(member)), BUSY_SECONDS)
    return None if busy is None else bool(busy)


def _owners(member: Member) -> list[str]:
    """Return the names by which the ledger knows a worker's processes."""
    return [_owner(pid) for pid in (member.pid, *(child.pid for child in member.children))]


def _owner(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}"


def _busy(cursor: Any, owners: list[str]) -> set[str]:
    """Return those of them that have jobs."""
    cursor.execute(HELD, {"owners": owners})
    return {owner for (owner,) in cursor.fetchall()}


def _fences(cursor: Any, owners: list[str]) -> dict[str, int]:
    """Return the jobs that they are amid, each with its fence."""
    cursor.execute(RUNNING, {"owners": owners})
    return dict(cursor.fetchall())


def _are_taken(cursor: Any, fences: Mapping[str, int]) -> bool:
    """Whether somebody else has got one of these jobs."""
    cursor.execute(FENCES, {"ids": list(fences)})
    return any(fence > fences[job_id] for job_id, fence in cursor.fetchall())


def _until(stage: Stage, ask: Callable[[Any], T], seconds: float) -> T | None:
    """Ask the ledger for so long until the answer is something; return the last one, None where it cannot say."""
    latest = time.monotonic() + LEDGER_SECONDS
    while True:
        try:
            with stage.connection() as own, own.cursor() as cursor:
                until_then = time.monotonic() + seconds
                while not (answer := ask(cursor)) and time.monotonic() < until_then:
                    time.sleep(LOOK_SECONDS)
                return answer
        except psycopg2.Error:  # another lane has taken it away
            if time.monotonic() > latest:
                return None
            time.sleep(LEDGER_PAUSE_SECONDS)


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
    "end_all_workers": end_all_workers,
    "rolling_restart": rolling_restart,
    "version_skew": version_skew,
    "clock_jump": clock_jump,
}

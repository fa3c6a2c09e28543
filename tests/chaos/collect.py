"""Writing down, after a cell, what the ledger, Redis and the processes hold: the harness's part of the evidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from sqlalchemy import text

from tasks import ActionSpec
from tasks._rules import rules_for
from tests.chaos.evidence import (
    ActionFacts,
    Baseline,
    Effect,
    LiveProcess,
    ProcessesLeft,
    RedisLeft,
    Run,
)
from tests.chaos.evidence_folder import LINES, write_ledger, write_object
from tests.chaos.lane import CRASH_CAP, LEASE_SECONDS, SWEEP_SECONDS, Lane
from tests.chaos.ledger_rows import Ledger, Snapshot, exported
from tests.chaos.patience import NotReached, until
from tests.chaos.staged import Staged

TABLES: Mapping[str, str] = {
    "jobs": "SELECT * FROM jobs WHERE tenant = :run",
    "decisions": "SELECT d.* FROM decisions d JOIN jobs j ON j.id = d.job_id WHERE j.tenant = :run",
    "events": "SELECT e.* FROM events e JOIN jobs j ON j.id = e.job_id WHERE j.tenant = :run ORDER BY job_id, seq",
    "messages": "SELECT * FROM messages WHERE tenant = :run ORDER BY conversation_id, seq",
    "approvals": "SELECT * FROM approvals WHERE tenant = :run ORDER BY id",
    "reservations": "SELECT r.* FROM budget_reservations r JOIN jobs j ON j.id = r.job_id WHERE j.tenant = :run",
    "accounts": "SELECT * FROM budget_accounts WHERE tenant = :run",
}
# A session that lost its client is over as soon as Postgres looks at its socket.
LEFT_SECONDS = 5.0


def facts_of(specs: Mapping[str, ActionSpec], *, prefix: str = "chaos.") -> dict[str, ActionFacts]:
    """Say what the code declares of the actions whose names begin so."""
    return {
        name: ActionFacts(
            effect=_effect(spec),
            max_retries=spec.policy.max_retries,
            key_ttl=spec.key_ttl,
            retry_backoff_max=spec.policy.retry_backoff_max,
            approved=bool(rules_for(name)),
            budgeted=spec.cost is not None,
        )
        for name, spec in specs.items()
        if name.startswith(prefix)
    }


def collect(play: Staged, *, actions: Mapping[str, ActionFacts]) -> None:
    """Complete the folder of what was played."""
    lane, folder, run = play.lane, play.folder, play.piece.name
    for kind in LINES.values():
        (folder / kind).touch()
    first = _snapshot(lane, run, "first")
    write_ledger(folder, Ledger(first, _snapshot(lane, run, "second")))
    with lane.redis() as client:
        write_object(folder, redis_left(client))
    write_object(folder, _processes_left(lane))
    _copy_logs(play)
    write_object(
        folder,
        Run(
            kind="cell",
            name=run,
            began=play.began,
            ended=time.time(),
            lease_seconds=LEASE_SECONDS,
            sweep_seconds=SWEEP_SECONDS,
            crash_cap=CRASH_CAP,
            must_judge=play.piece.must_judge,
            actions={name: actions[name] for name in play.piece.actions},
            # What belongs to the lane's living processes is left out on both sides: they go on to the next cell.
            baseline=Baseline(postgres_connections=0, redis_clients=0),
            expect_faults=True,
            quotas={},
            schedules=play.schedules,
            requests_in_time=not play.goes_on,
        ),
    )


def _snapshot(lane: Lane, run: str, path: str) -> Snapshot:
    with lane.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        at = connection.execute(text("SELECT extract(epoch FROM now())")).scalar_one()
        rows = {
            name: [exported(dict(row)) for row in connection.execute(text(query), {"run": run}).mappings()]
            for name, query in TABLES.items()
        }
    return Snapshot.of({"at": float(at), **rows}, path)


def redis_left(client: Any, rings_over: Callable[[Sequence[bytes]], int] = lambda _: 0) -> RedisLeft:
    """Say what a client of Redis finds; `rings_over`: how many of a queue's messages are for jobs that are over."""
    queues: dict[str, int] = {}
    over: dict[str, int] = {}
    keys: dict[str, list[str]] = {}
    for raw in client.scan_iter():
        key, kind = raw.decode(), client.type(raw).decode()
        if kind == "list":
            messages = client.lrange(raw, 0, -1)
            queues[key], over[key] = len(messages), rings_over(messages)
        elif key != "unacked" and kind != "none":  # it went since it was named: a worker heard its own word
            keys.setdefault(kind, []).append(key)
    named = {kind: tuple(sorted(each)) for kind, each in keys.items()}
    return RedisLeft(queues=queues, over=over, unacked=int(client.hlen("unacked")), keys=named)


def _processes_left(lane: Lane) -> ProcessesLeft:
    """Look at what is there although its process was killed."""
    try:
        until(lambda: lane.strangers() == 0, seconds=LEFT_SECONDS, what="the end of the sessions")
    except NotReached:
        sessions = lane.strangers()
    else:
        sessions = 0
    left = [
        LiveProcess(pid=process.pid, name=member.name, command=" ".join(process.cmdline()))
        for member in lane.cast
        if not member.lives
        for process in member.family
    ]
    return ProcessesLeft(processes=tuple(left), postgres_connections=sessions, redis_clients=0)


def _copy_logs(play: Staged) -> None:
    logs = play.folder / "logs"
    logs.mkdir(exist_ok=True)
    for member in play.lane.cast:
        if member.log.exists():
            with member.log.open("rb") as log:
                log.seek(member.began_at)
                said = log.read()
            if said:
                (logs / member.log.name).write_bytes(said)


def _effect(spec: ActionSpec) -> Effect:
    found: Effect = next(effect for effect in get_args(Effect) if effect == spec.effect)
    return found

"""Writing down what a storm leaves: the ledger, Redis, the processes, and what was run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from functools import partial
from uuid import UUID

from producer.ledger.states import AT_REST, in_sql
from tasks import load
from tests.chaos.collect import TABLES, facts_of, redis_left
from tests.chaos.evidence import (
    ActionFacts,
    Baseline,
    LiveProcess,
    ProcessesLeft,
    Run,
    ScheduleFacts,
)
from tests.chaos.evidence_folder import LINES, write_ledger, write_object
from tests.chaos.ledger_rows import Ledger, Snapshot, exported
from tests.chaos.patience import NotReached, until
from tests.chaos.storm.asks_world import RUN
from tests.chaos.storm.crew import NOW
from tests.chaos.storm.faults.postgres import sessions
from tests.chaos.storm.stage import CRASH_CAP, LEASE_SECONDS, SWEEP_SECONDS, Stage
from tests.rung import read_message

# A session whose client has ended is over as soon as Postgres looks at its socket.
LEFT_SECONDS = 10.0
MUST_JUDGE = ("I1", "I2", "I3", "I4", "I7", "I8", "I9", "I13", "I16")
# What a storm of the size of a slice has to have, beside.
MUST_JUDGE_IN_STORMS = ("I5", "I6", "I12", "I15", "I17", "I18", "I19")

AT_REST_OF = f"""
SELECT CAST(id AS text) AS id FROM jobs WHERE id = ANY(CAST(%(ids)s AS uuid[])) AND state IN ({in_sql(AT_REST)})
"""


def baseline_of(stage: Stage) -> Baseline:
    """Count what is connected before the crew is."""
    return Baseline(postgres_connections=sessions(stage), redis_clients=_redis_clients(stage))


def facts() -> Mapping[str, ActionFacts]:
    """Say what the code declares of the storm's actions: of both builds the same, but for a version."""
    return dict(facts_of(load([NOW]), prefix=f"{RUN}.").items())


def gather(
    stage: Stage,
    *,
    began: float,
    baseline: Baseline,
    quotas: Mapping[str, int],
    schedules: Sequence[ScheduleFacts],
    thorough: bool,
) -> None:
    """Complete the folder; everybody has been told to end by now."""
    for file in LINES.values():
        (stage.folder / file).touch()
    first = _snapshot(stage, "first")
    write_ledger(stage.folder, Ledger(first, _snapshot(stage, "second")))
    write_object(stage.folder, _processes_left(stage, baseline))
    with stage.redis() as client:
        write_object(stage.folder, redis_left(client, partial(rings_over, stage)))
    write_object(
        stage.folder,
        Run(
            kind="run",
            name=RUN,
            began=began,
            ended=time.time(),
            lease_seconds=LEASE_SECONDS,
            sweep_seconds=SWEEP_SECONDS,
            crash_cap=CRASH_CAP,
            must_judge=(*MUST_JUDGE, *(MUST_JUDGE_IN_STORMS if thorough else ())),
            actions=facts(),
            baseline=baseline,
            expect_faults=True,
            quotas=quotas,
            schedules=tuple(schedules),
            requests_in_time=False,  # whoever is stopped is stopped anywhere
        ),
    )


def _snapshot(stage: Stage, path: str) -> Snapshot:
    with stage.connection() as own, own.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0; BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT extract(epoch FROM now())")
        found: dict[str, object] = {"at": float(cursor.fetchone()[0])}
        for table, query in TABLES.items():
            cursor.execute(query.replace(":run", "%(run)s"), {"run": RUN})
            columns = [column.name for column in cursor.description]
            found[table] = [exported(dict(zip(columns, row, strict=True))) for row in cursor]
        cursor.execute("COMMIT")
    return Snapshot.of(found, path)


def _processes_left(stage: Stage, baseline: Baseline) -> ProcessesLeft:
    with contextlib.suppress(NotReached):
        until(
            lambda: (
                sessions(stage) <= baseline.postgres_connections and _redis_clients(stage) <= baseline.redis_clients
            ),
            seconds=LEFT_SECONDS,
            what="the end of the connections",
        )
    left = [
        LiveProcess(pid=process.pid, name=member.name, command=" ".join(process.cmdline()))
        for member in stage.crew.past
        for process in member.family
        if "storm" in " ".join(process.cmdline())  # a number that somebody else's process has by now
    ]
    return ProcessesLeft(
        processes=tuple(left), postgres_connections=sessions(stage), redis_clients=_redis_clients(stage)
    )


def rings_over(stage: Stage, messages: Sequence[bytes]) -> int:
    """Return how many of the messages are rings for nothing but jobs that are at rest."""
    named = [{str(job_id) for job_id in _named(message)} for message in messages]
    rows = stage.ask(AT_REST_OF, {"ids": sorted(set().union(*named))})
    at_rest = {row["id"] for row in rows}
    return sum(bool(ids) and ids <= at_rest for ids in named)


def _named(message: bytes) -> Sequence[UUID]:
    """Return the jobs that a message names; none, where it is no ring."""
    try:
        return read_message(message, "").job_ids
    except (ValueError, LookupError, TypeError):
        return []


def _redis_clients(stage: Stage) -> int:
    with stage.redis() as client:
        return int(client.info("clients")["connected_clients"]) - 1

"""All that the ledger knows of one job, read for somebody who asks why it ran, or why it does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.breaker_words import Transition
from producer.ledger.policies import PublishedPolicy, policies_in_force
from producer.ledger.reads import Event, JobRecord, PublishedAction, events_of, published_actions
from producer.ledger.states import LEASED, OPEN, RINGABLE, State, in_sql

# Counted no further: a person wants to know whether it is a few, many or a backlog.
COUNTED = 10_000
FOLLOW_UPS_TOLD = 100
TRANSITIONS_READ = 200

STANDING = text("""
SELECT j.action_version, j.maybe_happened, clock_timestamp() AS now,
  (SELECT n.id FROM jobs n WHERE n.tenant = j.tenant AND n.action = j.action
     AND n.idempotency_key = j.idempotency_key AND n.rerun > j.rerun ORDER BY n.rerun DESC LIMIT 1) AS newer
FROM jobs j WHERE j.id = :id
""")
TRAFFIC = text(f"""
SELECT
  (SELECT count(*) FROM (
     SELECT FROM jobs WHERE state IN ({in_sql(RINGABLE)}) AND queue = :queue AND id <> :id
       AND due_at <= clock_timestamp() LIMIT {COUNTED}) due) AS due,
  (SELECT count(*) FROM jobs WHERE state IN ({in_sql(LEASED)}) AND queue = :queue) AS of_queue,
  (SELECT count(*) FROM jobs WHERE state IN ({in_sql(LEASED)}) AND action = :action) AS of_action
""")
RELATED = text("SELECT id, action, state FROM jobs WHERE tenant = :tenant AND id = ANY(:ids)")
# By the request, for which there is an index; whatever names another one is found in its own chain.
FOLLOW_UPS = text("""
SELECT j.id, j.action, j.state FROM decisions d JOIN jobs j ON j.id = d.job_id
WHERE d.request_id = :request_id AND d.parent_job_id = :id AND j.tenant = :tenant ORDER BY j.id LIMIT :limit
""")
TRANSITIONS = text("""
SELECT name, epoch, was, becomes, reason, who, job_id, until FROM breaker_events
WHERE name = ANY(:names) ORDER BY epoch DESC LIMIT :limit
""")
TURN = text(f"""
SELECT h.id, h.action, h.state FROM conversations c JOIN jobs h ON h.id = c.turn_of
WHERE c.tenant = :tenant AND c.id = :conversation_id AND h.state IN ({in_sql(OPEN)}) AND h.id <> :id
""")
JOBS_OF_KEY = text("""
SELECT id FROM jobs
WHERE tenant = :tenant AND action = ANY(:actions) AND idempotency_key = :key ORDER BY action, rerun DESC
""")


@dataclass(frozen=True, slots=True)
class Related:
    """Another job that has to do with this one, as it stands now."""

    id: UUID
    action: str
    state: State


@dataclass(frozen=True, slots=True)
class Traffic:
    """What else is on its way.

    Attributes:
        due: Other jobs of the same queue that are due and that no worker has; counted up to `COUNTED`.
        of_queue: Jobs of that queue that workers have.
        of_action: Jobs of the same action that workers have.
    """

    due: int
    of_queue: int
    of_action: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A job with what explains it.

    Attributes:
        now: The database's time, when this was read.
        action_version: The version of the action that it was accepted for.
        maybe_happened: Whether an earlier attempt may have had its effect.
        published: What workers say of its action now; None where nobody has published it.
        newer: The newest job that its key stands for since; None where that is this one.
        transitions: What the breakers went through that it met, the newest first.
        related: Those that its decision and its events name.
        follow_ups: What its action asked for, and what is to bring its true result.
        turn_of: Which job has the turn in its conversation; None where none has, or this one.
        traffic: None where it does not wait for a worker.
        policies: That a worker has to have loaded to take it; none where it does not wait for one.
    """

    record: JobRecord
    events: Sequence[Event]
    now: datetime
    action_version: int
    maybe_happened: bool
    published: PublishedAction | None
    newer: UUID | None = None
    transitions: Sequence[Transition] = ()
    related: Mapping[UUID, Related]
    follow_ups: Sequence[Related] = ()
    turn_of: Related | None = None
    traffic: Traffic | None = None
    policies: Sequence[PublishedPolicy] = ()

    @property
    def last(self) -> Event | None:
        """The newest event that says where the job stands; a repeat of the request, or a late word, does not."""
        told = (event for event in reversed(self.events) if event.kind not in ("replayed", "late_result"))
        return next(told, None)


def read_story(connection: Connection, record: JobRecord) -> Story:
    """Read what belongs to a job. Several statements: what moves meanwhile may be told of by one and not by another."""
    row = connection.execute(STANDING, {"id": record.id}).one()
    events = events_of(connection, record.id)
    asked = {"tenant": record.tenant, "id": record.id}
    follow_ups = connection.execute(FOLLOW_UPS, asked | {"request_id": record.request_id, "limit": FOLLOW_UPS_TOLD})
    return Story(
        record=record,
        events=events,
        now=row.now,
        action_version=row.action_version,
        maybe_happened=row.maybe_happened,
        published=published_actions(connection).get(record.action),
        newer=row.newer,
        transitions=_transitions(connection, record, events),
        related=_related(connection, record, events),
        follow_ups=[_job(each) for each in follow_ups],
        turn_of=_turn(connection, record),
        traffic=_traffic(connection, record) if record.state in RINGABLE else None,
        policies=[each for each in policies_in_force(connection) if each.matches(record.action)]
        if record.state in RINGABLE
        else (),
    )


def jobs_of_key(connection: Connection, tenant: str, key: str, actions: Iterable[str]) -> list[UUID]:
    """Return the jobs that a key stands for with any of these actions; of one action, the newest first."""
    asked = {"tenant": tenant, "key": key, "actions": list(actions)}
    return list(connection.execute(JOBS_OF_KEY, asked).scalars())


def named_jobs(record: JobRecord, events: Iterable[Event]) -> set[UUID]:
    """Return the jobs that a decision and its history name beside its own."""
    named = {record.parent_job_id}
    for event in events:
        data = event.data if isinstance(event.data, dict) else {}
        named |= {_id(data.get(name)) for name in ("behind", "by", "true_result", "job_id")}
    return {job_id for job_id in named if job_id is not None}


def _transitions(connection: Connection, record: JobRecord, events: Iterable[Event]) -> list[Transition]:
    names = {(event.data or {}).get("waiting_on") for event in events if event.kind == "held"} | {record.waiting_on}
    known = [name for name in names if isinstance(name, str)]
    if not known:
        return []
    rows = connection.execute(TRANSITIONS, {"names": known, "limit": TRANSITIONS_READ})
    return [Transition(**row._mapping) for row in rows]  # noqa: SLF001  SQLAlchemy's public way to a row's names


def _related(connection: Connection, record: JobRecord, events: Iterable[Event]) -> dict[UUID, Related]:
    rows = connection.execute(RELATED, {"tenant": record.tenant, "ids": list(named_jobs(record, events))})
    return {row.id: _job(row) for row in rows}


def _turn(connection: Connection, record: JobRecord) -> Related | None:
    if record.conversation_id is None:
        return None
    asked = {"tenant": record.tenant, "conversation_id": record.conversation_id, "id": record.id}
    row = connection.execute(TURN, asked).one_or_none()
    return None if row is None else _job(row)


def _traffic(connection: Connection, record: JobRecord) -> Traffic:
    asked = {"queue": record.queue, "action": record.action, "id": record.id}
    row = connection.execute(TRAFFIC, asked).one()
    return Traffic(row.due, row.of_queue, row.of_action)


def _job(row: Any) -> Related:
    return Related(row.id, row.action, State(row.state))


def _id(value: object) -> UUID | None:
    with suppress(ValueError):
        return UUID(value) if isinstance(value, str) else None
    return None

"""What both sides read from the ledger: jobs with their decisions, their events, the published actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.ledger.prepared import Prepared
from producer.ledger.states import AT_REST, State

JOB_COLUMNS = f"""
  j.id, j.tenant, j.action, j.idempotency_key, j.key_derived, j.rerun, j.replays, j.state, j.waiting_for, j.waiting_on,
  j.queue, j.priority, j.traceparent, j.accepted_at, j.due_at, j.deadline_at, j.attempt, j.crashes, j.fence, j.effect,
  j.lease_owner, j.lease_expires_at, j.cancel_requested_at, j.finished_at, j.looks_left,
  j.conversation_id,
  j.degraded_by, j.repairs,
  d.request_id, d.parent_job_id, d.agent_id, d.user_id, d.input, d.reasoning, d.params,
  CASE WHEN j.state <> '{State.DEGRADED}' THEN d.result END AS result,
  CASE WHEN j.state = '{State.DEGRADED}' THEN d.result END AS fallback, d.error, d.latency_ms,
  d.tokens_in, d.tokens_out, d.cost_usd, clock_timestamp() - j.accepted_at AS age
"""
JOBS = f"SELECT {JOB_COLUMNS} FROM jobs j JOIN decisions d ON d.job_id = j.id"

# What waiting for a job asks: planning it takes longer than doing it.
JOB_BY_ID = Prepared("job_by_id", f"{JOBS} WHERE j.id = :id AND j.tenant = :tenant", id="uuid", tenant="text")
JOB_BY_KEY = text(f"""
{JOBS} WHERE j.tenant = :tenant AND j.action = :action AND j.idempotency_key = :key ORDER BY j.rerun DESC LIMIT 1
""")
# A state is a constant in it: partial indexes match constants only, and the rare ones among millions are found by them.
JOBS_NEWEST_FIRST = {
    state: text(f"""
{JOBS} WHERE j.tenant = :tenant AND {"true" if state is None else f"j.state = '{state}'"}
  AND (CAST(:action AS text) IS NULL OR j.action = :action)
  AND j.id < coalesce(CAST(:before AS uuid), 'ffffffff-ffff-ffff-ffff-ffffffffffff') ORDER BY j.id DESC LIMIT :limit
""")
    for state in (None, *State)
}
JOBS_OF_REQUEST = text(f"""
{JOBS} WHERE d.request_id = :request_id AND j.tenant = :tenant ORDER BY d.decided_at, j.id
""")
# Who waits for a job waits on while its action can still find out what became of it.
STATES_OF = Prepared(
    "states_of",
    f"""
SELECT id, CASE WHEN looks_left > 0 THEN '{State.WAITING}' ELSE state END AS state
FROM jobs WHERE id = ANY(:ids)
""",
    ids="uuid[]",
)
COUNTS = text("SELECT state, count(*) AS jobs FROM jobs WHERE tenant = :tenant GROUP BY state")
EVENTS_OF = text("SELECT seq, at, kind, attempt, fence, worker, data FROM events WHERE job_id = :id ORDER BY seq")
ACTIONS = text("""
SELECT name, version, effect, queue, description, params_schema, result_schema, policy, published_at
FROM actions ORDER BY name
""")


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job and its decision, as they stood when they were read.

    Attributes:
        attempt: Attempts spent; a hold spends none.
        waiting_for: ``retry`` | ``breaker`` | ``rate`` | ``concurrency`` | ``conversation`` (another turn is first) |
            ``budget`` | ``worker`` (its last one vanished, or stopped) | ``repair`` (of a model's answer) |
            ``retries`` (the fleet has used up those that a dependency may get) | ``policy`` (one could not be
            asked); None unless the state is ``waiting``.
        waiting_on: Of which dependency, where it waits for one's breaker, or for one that asked for patience.
        looks_left: How often its action will still be asked what became of it; None unless the state is ``in_doubt``
            and the action can tell.
        conversation_id: Of which it is a turn; None where it is none.
        degraded_by: The rule by which it had no result, where the state is ``degraded`` or was; a true result may have
            come since. None where no fallback ever stood in.
        repairs: Attempts that were to repair a model's answer; none of them is spent.
        parent_job_id: The job whose action asked for this one; None where a producer did.
        result: What the action returned; None where it has not, and where its fallback stands in.
        fallback: What stands in for the result, where the state is ``degraded``.
        error: ``{"type", "message", "traceback"}`` of the last attempt that failed.
        latency_ms: From the last attempt's intent to its outcome, in milliseconds.
        cost_usd: Sum over the attempts; None where no price is known, which is not zero.
        age: Seconds since it was accepted, by the database's clock.
    """

    id: UUID
    tenant: str
    action: str
    idempotency_key: str
    key_derived: bool
    rerun: int
    replays: int
    state: State
    waiting_for: str | None
    waiting_on: str | None
    queue: str
    priority: int
    traceparent: str
    accepted_at: datetime
    due_at: datetime
    deadline_at: datetime | None
    attempt: int
    crashes: int
    fence: int
    effect: str | None
    lease_owner: str | None
    lease_expires_at: datetime | None
    cancel_requested_at: datetime | None
    finished_at: datetime | None
    looks_left: int | None
    conversation_id: str | None
    degraded_by: str | None
    repairs: int
    request_id: str
    parent_job_id: UUID | None
    agent_id: str | None
    user_id: str | None
    input: Any
    reasoning: str | None
    params: dict[str, Any]
    result: Any
    fallback: Any
    error: dict[str, Any] | None
    latency_ms: Decimal | None
    tokens_in: int | None
    tokens_out: int | None
    cost_usd: Decimal | None
    age: float

    @property
    def is_at_rest(self) -> bool:
        """Whether no worker moves it any more by itself: it has ended, or only a person can say what became of it."""
        return self.state in AT_REST and not self.looks_left


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a job's history; `seq` counts from 1 without gaps."""

    seq: int
    at: datetime
    kind: str
    attempt: int | None
    fence: int | None
    worker: str | None
    data: dict[str, Any] | None


@dataclass(frozen=True, slots=True, eq=False)
class PublishedAction:
    """What workers say of an action, so that a producer without its code can check a request for it.

    Equal only to itself, so that what is derived from it can be kept by it.
    """

    name: str
    version: int
    effect: str
    queue: str | None
    description: str
    params_schema: dict[str, Any]
    result_schema: dict[str, Any]
    policy: dict[str, Any]
    published_at: datetime


def job_by_id(connection: Connection, tenant: str, job_id: UUID) -> JobRecord | None:
    """Read one job of this tenant; another tenant's is not there."""
    return _first(JOB_BY_ID.run(connection, {"id": job_id, "tenant": tenant}))


def job_by_key(connection: Connection, tenant: str, action: str, key: str) -> JobRecord | None:
    """Read the newest job that the key stands for."""
    return _first(connection.execute(JOB_BY_KEY, {"tenant": tenant, "action": action, "key": key}).all())


def jobs_newest_first(
    connection: Connection, tenant: str, *, state: State | None, action: str | None, limit: int, before: UUID | None
) -> list[JobRecord]:
    """Read at most `limit` jobs, the newest first; with `before`, those accepted before that one."""
    asked = {"tenant": tenant, "action": action, "limit": limit, "before": before}
    return [_job(row) for row in connection.execute(JOBS_NEWEST_FIRST[state], asked)]


def jobs_of_request(connection: Connection, tenant: str, request_id: str) -> list[JobRecord]:
    """Read every decision made for one request, in the order they were made."""
    return [_job(r) for r in connection.execute(JOBS_OF_REQUEST, {"tenant": tenant, "request_id": request_id})]


def states_of(connection: Connection, job_ids: Sequence[UUID]) -> dict[UUID, State]:
    """Read only where these jobs stand; what is asked again and again for those who wait. Those not there are left out.

    Whosever they are: who waits has read his job before, and reads it again.

    A job in doubt whose effect will be looked up stands as ``waiting``.
    """
    found = STATES_OF.run(connection, {"ids": list(job_ids)})
    return {row.id: State(row.state) for row in found}


def counts_by_state(connection: Connection, tenant: str) -> dict[State, int]:
    """Count the tenant's jobs by state. Reads every row: for a person, not for a job's way."""
    return {State(row.state): row.jobs for row in connection.execute(COUNTS, {"tenant": tenant})}


def events_of(connection: Connection, job_id: UUID) -> list[Event]:
    """Read a job's history in order."""
    return [Event(*row) for row in connection.execute(EVENTS_OF, {"id": job_id})]


def published_actions(connection: Connection) -> dict[str, PublishedAction]:
    """Read every action that a worker has published, by name."""
    return {row["name"]: PublishedAction(**row) for row in connection.execute(ACTIONS).mappings()}


def _first(rows: Sequence[Any]) -> JobRecord | None:
    return _job(rows[0]) if rows else None


def _job(row: Any) -> JobRecord:
    values = row._asdict()
    return JobRecord(**values | {"state": State(row.state), "age": row.age.total_seconds()})

"""The steps that a machine takes: each one statement, sent as the product sends it, and what the model says to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.engine import Connection

from producer.acting import Actor
from producer.envelope import Envelope
from producer.ledger import accept, cancel, resolve
from tests.integration.ledger_model.rows import Claimed
from tests.integration.ledger_model.worker import CRASH_CAP, LEASE_SECONDS, Model
from tests.rung import ANY_VERSION
from worker import relay, rescue, statements
from worker.attempt import Attempt, Intent, Lease, Settlement

ACTOR = Actor("eve", "test")
BATCH = 100
LOOK_AGAIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Step:
    """One statement.

    Attributes:
        by: Whose connection it goes over.
        foresee: Takes the step in a model, and returns the answer.
        take: Takes it in the ledger, and returns the answer.
    """

    name: str
    by: str
    foresee: Callable[[Model], Any]
    take: Callable[[Connection], Any]


def accepting(asked: Sequence[Envelope], *, rings: bool, prepared: bool) -> Step:
    return Step(
        "accept",
        "producer",
        lambda model: model.accept(asked, rings=rings),
        lambda connection: accept.accept(connection, asked, rings=rings, prepared=prepared),
    )


def noting_a_replay(job_id: UUID) -> Step:
    return Step(
        "note_replays",
        "producer",
        lambda model: model.note_replay(job_id),
        lambda connection: accept.note_replays(connection, [job_id]),
    )


def cancelling(tenant: str, job_id: UUID) -> Step:
    return Step(
        "cancel",
        "producer",
        lambda model: model.cancel(job_id),
        lambda connection: cancel.cancel(connection, tenant, job_id, reason=None, actor=ACTOR),
    )


def resolving(tenant: str, job_id: UUID, verdict: Literal["happened", "retry", "abandon"]) -> Step:
    result = "7" if verdict == "happened" else None
    return Step(
        "resolve",
        "producer",
        lambda model: model.resolve(job_id, verdict, None if result is None else 7),
        lambda connection: resolve.resolve(
            connection, tenant, job_id, verdict, result=result, reason="looked it up", actor=ACTOR
        ),
    )


def claiming(worker: str, wanted: Mapping[UUID, int]) -> Step:
    def take(connection: Connection) -> dict[UUID, Claimed]:
        asked = [statements.Wanted("test.add", version, job_id) for job_id, version in wanted.items()]
        return {a.job_id: _told(a) for a in statements.claim(connection, worker, LEASE_SECONDS, asked)}

    return Step("claim", worker, lambda model: model.claim(worker, wanted), take)


def intending(worker: str, intents: Sequence[Intent]) -> Step:
    return Step(
        "intend",
        worker,
        lambda model: model.intend(worker, intents),
        lambda connection: statements.intend(connection, worker, LEASE_SECONDS, intents),
    )


def settling(worker: str, settlements: Sequence[Settlement], *, knows: bool) -> Step:
    return Step(
        "settle",
        worker,
        lambda model: model.settle(worker, settlements, knows=knows),
        lambda connection: statements.settle(connection, worker, settlements),
    )


def renewing(worker: str, leases: Sequence[Lease]) -> Step:
    return Step(
        "renew",
        worker,
        lambda model: model.renew(worker, leases),
        lambda connection: statements.renew(connection, worker, LEASE_SECONDS, leases),
    )


def looking(worker: str) -> Step:
    def take(connection: Connection) -> dict[UUID, bool]:
        due = {row.id: row.fresh for row in connection.execute(relay.DUE, {"batch": BATCH, **ANY_VERSION})}
        asked = {"ids": list(due), "seconds": [LOOK_AGAIN_SECONDS] * len(due)}
        ours = set(connection.execute(relay.LOOKED_AT, asked).scalars())
        return {job_id: fresh for job_id, fresh in due.items() if job_id in ours}

    return Step("look", worker, lambda model: model.look(LOOK_AGAIN_SECONDS), take)


def expiring(worker: str) -> Step:
    return Step(
        "expire",
        worker,
        lambda model: model.expire(worker),
        lambda connection: set(connection.execute(relay.EXPIRE, {"batch": BATCH, "worker": worker}).scalars()),
    )


def rescuing(worker: str) -> Step:
    def take(connection: Connection) -> dict[UUID, str]:
        asked = {"batch": BATCH, "worker": worker, "cap": CRASH_CAP}
        return {row.id: row.becomes for row in connection.execute(rescue.RESCUE, asked)}

    return Step("rescue", worker, lambda model: model.rescue(worker), take)


def _told(attempt: Attempt) -> Claimed:
    return Claimed(
        attempt.job_id,
        attempt.fence,
        attempt.number,
        attempt.maybe_happened,
        attempt.cancel_requested,
        attempt.deadline_left,
        attempt.repeat_left,
        attempt.intended_before,
    )

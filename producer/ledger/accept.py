"""Accepting: a job, its decision and its first event in one statement, or the answer that it exists already."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from producer.canonical import differing_paths
from producer.envelope import Envelope, no_time_left
from producer.errors import Conflict, IdempotencyConflict, KeyInFlight
from producer.ledger.prepared import Prepared
from producer.ledger.states import CLOSED, WITHOUT_RESULT, State, in_sql

# How long a fresh ring may be on its way before the relay looks whether it got lost.
RING_PATIENCE_SECONDS = 5
ROUNDS = 10
LOCK_NOT_AVAILABLE = "55P03"
# What one caller's request may cost those that it is accepted together with, before each is accepted alone.
TOGETHER_WAITS = "SET LOCAL lock_timeout = 50; SET LOCAL statement_timeout = 5000; "
# An envelope's fields with their types in SQL, in the order in which they are sent.
COLUMNS = {
    "id": "uuid",
    "tenant": "text",
    "action": "text",
    "action_version": "int",
    "idempotency_key": "text",
    "key_derived": "boolean",
    "fingerprint": "text",
    "params": "text",
    "input": "text",
    "reasoning": "text",
    "user_id": "text",
    "agent_id": "text",
    "request_id": "text",
    "traceparent": "text",
    "queue": "text",
    "priority": "smallint",
    "run_at": "timestamptz",
    "deadline": "timestamptz",
    "on_closed": "text",
    "parent_job_id": "uuid",
    "conversation_id": "text",
}
_values_of = attrgetter(*COLUMNS)
_sent = ", ".join(f"CAST(row ->> {i} AS {kind}) AS {name}" for i, (name, kind) in enumerate(COLUMNS.items(), start=1))
_as_json = json.JSONEncoder(default=str, ensure_ascii=False, separators=(",", ":")).encode

# A key that another transaction is inserting makes ON CONFLICT wait for it; the look for the latest still has the
# snapshot from before, so such a request is answered by neither arm and asks again. Rows go in by key order, so
# that two batches with keys in common wait for one another in one direction only. A request that is sent again finds
# its own job, also where its key stands for a later one by now.
ACCEPT = Prepared(
    "accept",
    f"""
WITH asked AS (
  SELECT CAST(row ->> 0 AS int) AS ordinal, {_sent} FROM jsonb_array_elements(:asked) AS sent(row)
), judged AS MATERIALIZED (
  SELECT a.*, coalesce(l.rerun + 1, 0) AS rerun, coalesce(a.run_at, clock_timestamp()) AS due_at,
    l.id AS latest_id, l.state, l.accepted_at, l.same,
    l.id IS NULL
      OR (l.same AND l.id <> a.id AND a.on_closed = 'rerun' AND l.state IN ({in_sql(CLOSED)}))
      OR (l.same AND l.id <> a.id AND a.on_closed = 'rerun_if_failed' AND l.state IN ({in_sql(WITHOUT_RESULT)}))
      AS wanted
  FROM asked a LEFT JOIN LATERAL (
    SELECT j.id, j.state, j.accepted_at, j.rerun, j.fingerprint = decode(a.fingerprint, 'hex') AS same
    FROM jobs j
    WHERE j.tenant = a.tenant AND j.action = a.action AND j.idempotency_key = a.idempotency_key
    ORDER BY j.id = a.id DESC, j.rerun DESC LIMIT 1
  ) l ON true
), wanted AS MATERIALIZED (
  SELECT * FROM judged WHERE wanted
), accepted AS (
  INSERT INTO jobs (id, tenant, action, action_version, idempotency_key, key_derived, rerun, fingerprint, state, queue,
                    priority, traceparent, conversation_id, due_at, deadline_at, ring_at)
  SELECT id, tenant, action, action_version, idempotency_key, key_derived, rerun, decode(fingerprint, 'hex'),
         '{State.QUEUED}', queue, priority, traceparent, conversation_id, due_at, deadline,
         CASE WHEN due_at <= clock_timestamp() AND :rings THEN due_at + make_interval(secs => :patience) ELSE due_at END
  FROM wanted ORDER BY tenant, action, idempotency_key, ordinal
  ON CONFLICT (tenant, action, idempotency_key, rerun) DO NOTHING
  RETURNING id, accepted_at, due_at
), decided AS (
  INSERT INTO decisions (job_id, parent_job_id, request_id, agent_id, user_id, action, input, reasoning, params)
  SELECT id, parent_job_id, request_id, agent_id, user_id, action, CAST(input AS json), reasoning, CAST(params AS json)
  FROM wanted JOIN accepted USING (id)
), noted AS (
  INSERT INTO events (job_id, seq, kind, data)
  SELECT id, 1, 'accepted', json_build_object('fingerprint', fingerprint, 'request_id', request_id, 'due_at', a.due_at)
  FROM accepted a JOIN wanted w USING (id)
)
SELECT w.ordinal, CAST(NULL AS uuid) AS id, '{State.QUEUED}' AS state, true AS same, true AS created, a.accepted_at,
       a.due_at <= clock_timestamp() AS due
FROM accepted a JOIN wanted w USING (id)
UNION ALL
SELECT ordinal, latest_id, state, same, false, accepted_at, false FROM judged WHERE NOT wanted
""",
    hashing=True,
    asked="jsonb",
    rings="boolean",
    patience="double precision",
)

# The same for one job whose key is new, at half the cost. No row: the key stands already, or is being accepted.
ACCEPT_NEW = Prepared(
    "accept_new",
    f"""
WITH accepted AS (
  INSERT INTO jobs (id, tenant, action, action_version, idempotency_key, key_derived, fingerprint, state, queue,
                    priority, traceparent, conversation_id, due_at, deadline_at, ring_at)
  SELECT :id, :tenant, :action, :action_version, :idempotency_key, :key_derived, decode(:fingerprint, 'hex'),
         '{State.QUEUED}', :queue, :priority, :traceparent, :conversation_id, due_at, :deadline,
         CASE WHEN due_at <= clock_timestamp() AND :rings THEN due_at + make_interval(secs => :patience) ELSE due_at END
  FROM (SELECT coalesce(:run_at, clock_timestamp()) AS due_at) AS asked
  ON CONFLICT (tenant, action, idempotency_key, rerun) DO NOTHING
  RETURNING id, accepted_at, due_at
), decided AS (
  INSERT INTO decisions (job_id, parent_job_id, request_id, agent_id, user_id, action, input, reasoning, params)
  SELECT id, :parent_job_id, :request_id, :agent_id, :user_id, :action, :input, :reasoning, :params FROM accepted
), noted AS (
  INSERT INTO events (job_id, seq, kind, data)
  SELECT id, 1, 'accepted', json_build_object('fingerprint', :fingerprint, 'request_id', :request_id, 'due_at', due_at)
  FROM accepted
)
SELECT 0 AS ordinal, CAST(NULL AS uuid) AS id, '{State.QUEUED}' AS state, true AS same, true AS created, accepted_at,
       due_at <= clock_timestamp() AS due
FROM accepted
""",
    hashing=False,
    **{name: kind for name, kind in COLUMNS.items() if name != "on_closed"} | {"params": "json", "input": "json"},
    rings="boolean",
    patience="double precision",
)

CLOCK = text("SELECT clock_timestamp()")
STANDING = text(
    "SELECT CAST(d.params AS text) AS params, j.action_version"
    " FROM jobs j JOIN decisions d ON d.job_id = j.id WHERE j.id = :id"
)

NOTE_REPLAYS = text("""
WITH replayed AS (
  UPDATE jobs SET replays = replays + 1, last_seq = last_seq + CASE WHEN replays < :noted THEN 1 ELSE 0 END
  WHERE id = ANY(:ids) RETURNING id, last_seq, replays
)
INSERT INTO events (job_id, seq, kind, data)
SELECT id, last_seq, 'replayed', json_build_object('replays', replays) FROM replayed WHERE replays <= :noted
""")
# A producer that repeats itself for ever must not grow the history for ever; jobs.replays goes on counting.
REPLAYS_NOTED = 10

Outcome = Literal["created", "replayed", "conflict"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request.

    Attributes:
        outcome: ``created`` | ``replayed`` (the key stands for this same request) | ``conflict`` (for another).
        job_id: The job that the key stands for.
        state: That job's state at the time.
        accepted_at: When that job was accepted.
        due: Whether it was created and may be performed now, so that it should be rung.
        paths: Where the two requests differ, for a conflict.
        wrote: Whether this very statement wrote the job; an earlier try of the same request may have.
    """

    outcome: Outcome
    job_id: UUID
    state: State
    accepted_at: datetime
    due: bool
    paths: tuple[str, ...] = ()
    wrote: bool = False


def accept(
    connection: Connection, envelopes: Sequence[Envelope], *, rings: bool, prepared: bool = False
) -> list[Answer]:
    """Accept requests in one statement and answer each, in order.

    Safe to repeat with the same envelopes: one that landed the first time is answered ``created`` again, which is
    how a caller recovers from a commit whose answer was lost. Within one batch, the first of two equal keys wins.

    Args:
        connection: In autocommit, or in the transaction that the jobs shall belong to.
        envelopes: What to accept.
        rings: Whether the caller will ring the jobs itself after the commit; else the relay does so at once.
        prepared: Whether the connection is our own and in autocommit, so that the statement is planned only once.
    """
    answers: dict[int, Answer] = {}
    for _ in range(ROUNDS + 1):
        waiting = [i for i in range(len(envelopes)) if i not in answers]
        if not waiting:
            break
        rows = _rows(connection, envelopes, waiting, rings=rings, prepared=prepared)
        answers.update(_answer(row, envelopes) for row in rows)
    else:
        raise KeyInFlight
    return list(_with_paths(connection, envelopes, [answers[i] for i in range(len(envelopes))]))


def accept_together(connection: Connection, envelopes: Sequence[Envelope]) -> list[Answer | None]:
    """Accept requests of several callers in one statement, where none of them keeps the others waiting.

    Safe to repeat, as `accept`.

    Args:
        connection: Our own, in autocommit.
        envelopes: What to accept; the callers will ring the jobs.

    Returns:
        For each its answer, in order; None for one that should be asked for alone: its key stands for another request,
        or is being accepted elsewhere, here perhaps.

    Raises:
        DBAPIError: If the ledger would not have one of them, or one waited for a lock; nothing was written.
    """
    asked = {"asked": _asked(envelopes, range(len(envelopes))), "rings": True, "patience": RING_PATIENCE_SECONDS}
    answers = dict(_answer(row, envelopes) for row in ACCEPT.run(connection, asked, ahead=TOGETHER_WAITS))
    plain = {ordinal: answer for ordinal, answer in answers.items() if answer.outcome != "conflict"}
    return [plain.get(ordinal) for ordinal in range(len(envelopes))]


def _rows(
    connection: Connection, envelopes: Sequence[Envelope], ordinals: Sequence[int], *, rings: bool, prepared: bool
) -> Sequence[Any]:
    """Ask for those of the envelopes that have no answer yet."""
    how = {"rings": rings, "patience": RING_PATIENCE_SECONDS}
    try:
        if prepared and len(envelopes) == 1:
            found = ACCEPT_NEW.run(connection, _row(envelopes[0]) | how)
            if found:
                return found
        asked = {"asked": _asked(envelopes, ordinals), **how}
        return (ACCEPT.run if prepared else ACCEPT.run_plain)(connection, asked)
    except OperationalError as error:
        if getattr(error.orig, "pgcode", None) == LOCK_NOT_AVAILABLE:
            raise KeyInFlight from error
        raise


def refuse_conflicts(answers: Sequence[Answer], envelopes: Sequence[Envelope]) -> None:
    """Raise IdempotencyConflict with every conflict of a batch, which the caller takes back as a whole."""
    refused_too = {answer.job_id for answer in answers if answer.outcome == "created"}
    found = [
        Conflict(
            index,
            envelope.action,
            envelope.idempotency_key,
            None if answer.job_id in refused_too else answer.job_id,
            answer.paths,
        )
        for index, (envelope, answer) in enumerate(zip(envelopes, answers, strict=True))
        if answer.outcome == "conflict"
    ]
    if found:
        raise IdempotencyConflict(found)


def refuse_late(connection: Connection, answers: Sequence[Answer], envelopes: Sequence[Envelope]) -> None:
    """Raise InvalidRequest for the first of a batch that was written after its deadline, which the caller takes back.

    By the ledger's clock once it is written, and only here: a request that was accepted in time and is sent again,
    since its answer was lost, finds its job, however late; and one that was on its way for long, or waited for its key,
    is not accepted after it was refused.
    """
    written = [
        (envelope.deadline, index)
        for index, (envelope, answer) in enumerate(zip(envelopes, answers, strict=True))
        if answer.wrote and envelope.deadline is not None
    ]
    if not written:
        return
    now: datetime = connection.execute(CLOCK).scalar_one()
    for deadline, index in written:
        if deadline <= now:
            raise no_time_left(deadline, index)


def note_replays(connection: Connection, job_ids: Sequence[UUID]) -> None:
    """Count that jobs were asked for again; the first ten times each are events of their history."""
    connection.execute(NOTE_REPLAYS, {"ids": list(job_ids), "noted": REPLAYS_NOTED})


def _asked(envelopes: Sequence[Envelope], ordinals: Sequence[int]) -> str:
    # Rows without names: half as much for both sides to read and write, and Postgres finds the nth at once.
    return _as_json([[i, *_values_of(envelopes[i])] for i in ordinals])


def _row(envelope: Envelope) -> dict[str, Any]:
    # Not dataclasses.asdict, which copies every value, and took longer than all else here.
    return dict(zip(COLUMNS, _values_of(envelope), strict=True))


def _answer(row: Any, envelopes: Sequence[Envelope]) -> tuple[int, Answer]:
    ordinal, found, state, same, wrote, accepted_at, due = row
    envelope = envelopes[ordinal]
    job_id = found or envelope.id  # what was written needs no id to come back
    created = job_id == envelope.id
    outcome: Outcome = "created" if created else "replayed" if same else "conflict"
    due = due or (created and (envelope.run_at is None or envelope.run_at <= accepted_at))
    return ordinal, Answer(outcome, job_id, State(state), accepted_at, due, wrote=wrote)


def _with_paths(connection: Connection, envelopes: Sequence[Envelope], answers: list[Answer]) -> Iterator[Answer]:
    """Add to each conflict where it lies; the params are read only then."""
    for envelope, answer in zip(envelopes, answers, strict=True):
        if answer.outcome != "conflict":
            yield answer
            continue
        row = connection.execute(STANDING, {"id": answer.job_id}).one()
        paths = differing_paths(json.loads(envelope.params), json.loads(row.params))
        if row.action_version != envelope.action_version:
            paths = ("action_version", *paths)
        yield Answer("conflict", answer.job_id, answer.state, answer.accepted_at, due=False, paths=paths)

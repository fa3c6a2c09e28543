"""Turns of conversations: whose it is, and what it has said. Two of one conversation never run at the same time.

A turn belongs to its job, not to an attempt or a worker: whoever takes over the job has it. It is free once that job is
closed, whoever closed it, so nothing has to be given back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.engine import Connection

from producer.conversation import Message
from producer.ledger.accept import RING_PATIENCE_SECONDS
from producer.ledger.conversations import FIRST_IN_LINE, HISTORY_BYTES, HISTORY_MESSAGES, messages_of
from producer.ledger.engine import transaction_on
from producer.ledger.prepared import Prepared
from producer.ledger.states import OPEN, State, in_sql
from producer.ring import Ring, ahead
from worker.attempt import Lease, Settlement

# A conversation begins with its first turn. Locked in order, so that two workers cannot wait for one another in a
# circle. A job that was accepted before its action had conversations learns here of which it is a turn.
LOCK_CONVERSATIONS = Prepared(
    "lock_conversations",
    """
WITH asked AS (
  SELECT * FROM unnest(:ids, :fences, :tenants, :conversations) AS a(id, fence, tenant, conversation_id)
), adopted AS (
  UPDATE jobs j SET conversation_id = a.conversation_id FROM asked a
  WHERE j.id = a.id AND j.fence = a.fence AND j.conversation_id IS NULL
)
INSERT INTO conversations AS c (tenant, id) SELECT DISTINCT tenant, conversation_id FROM asked ORDER BY 1, 2
ON CONFLICT (tenant, id) DO UPDATE SET last_seq = c.last_seq
RETURNING c.id
""",
    ids="uuid[]",
    fences="bigint[]",
    tenants="text[]",
    conversations="text[]",
)

# A statement of its own, after the lock: what others did while it was waited for is seen.
TAKE_TURNS = Prepared(
    "take_turns",
    f"""
WITH judged AS MATERIALIZED (
  SELECT j.id, j.tenant, j.conversation_id, first.id AS first,
    (SELECT h.id FROM jobs h WHERE h.id = c.turn_of AND h.state IN ({in_sql(OPEN)})) AS holder
  FROM unnest(:ids, :fences) AS a(id, fence)
  JOIN jobs j ON j.id = a.id AND j.fence = a.fence
  JOIN conversations c ON c.tenant = j.tenant AND c.id = j.conversation_id
  {FIRST_IN_LINE}
  WHERE j.state = '{State.CLAIMED}' AND j.lease_owner = :worker
), taken AS (
  UPDATE conversations c SET turn_of = g.id FROM judged g
  WHERE c.tenant = g.tenant AND c.id = g.conversation_id AND coalesce(g.holder, g.first) = g.id
)
SELECT id, tenant, conversation_id, coalesce(holder, first) AS ahead FROM judged
""",
    ids="uuid[]",
    fences="bigint[]",
    worker="text",
)

# Who is first in line, where nobody has the turn: only if it is held, or it comes by itself. Should the ring for it get
# lost, the relay looks soon. A row that is locked may be one that a relay puts off: it is waited for.
NEXT_TURNS = Prepared(
    "next_turns",
    f"""
WITH free AS MATERIALIZED (
  SELECT first.id FROM unnest(:tenants, :conversations) AS asked(tenant, id)
  JOIN conversations c ON c.tenant = asked.tenant AND c.id = asked.id
  {FIRST_IN_LINE}
  WHERE NOT EXISTS (SELECT FROM jobs h WHERE h.id = c.turn_of AND h.state IN ({in_sql(OPEN)}))
), held AS MATERIALIZED (
  SELECT j.id FROM free JOIN jobs j ON j.id = free.id
  WHERE j.state = '{State.WAITING}' AND j.waiting_for = 'conversation'
  ORDER BY j.id FOR UPDATE OF j
), next AS (
  UPDATE jobs j SET ring_at = clock_timestamp() + make_interval(secs => :patience) FROM held WHERE j.id = held.id
  RETURNING j.*
)
SELECT n.tenant, n.conversation_id, n.id, n.action, n.queue, n.priority, n.traceparent, d.request_id,
  coalesce(CAST(a.policy ->> 'ring_size' AS int), 1) AS together, set_config('synchronous_commit', 'off', true)
FROM next n JOIN decisions d ON d.job_id = n.id LEFT JOIN actions a ON a.name = n.action
""",
    tenants="text[]",
    conversations="text[]",
    patience="double precision",
)

# Only whose turn it is may say something. Locked in order, as above.
APPEND = Prepared(
    "append",
    """
WITH asked AS (
  SELECT * FROM json_to_recordset(:asked) AS a(job_id uuid, tenant text, conversation_id text, ordinal int, role text,
    content text, tool_calls text, tokens bigint)
), counted AS (
  SELECT tenant, conversation_id, job_id, CAST(count(*) AS int) AS said FROM asked GROUP BY 1, 2, 3
), held AS MATERIALIZED (
  SELECT c.tenant, c.id, n.job_id, n.said FROM counted n
  JOIN conversations c ON c.tenant = n.tenant AND c.id = n.conversation_id AND c.turn_of = n.job_id
  ORDER BY c.tenant, c.id FOR UPDATE OF c
), moved AS (
  UPDATE conversations c SET last_seq = c.last_seq + h.said FROM held h WHERE c.tenant = h.tenant AND c.id = h.id
  RETURNING h.job_id, c.last_seq - h.said AS before
)
INSERT INTO messages (tenant, conversation_id, seq, role, content, tool_calls, tokens, job_id)
SELECT a.tenant, a.conversation_id, m.before + a.ordinal, a.role, a.content, CAST(a.tool_calls AS json), a.tokens,
  a.job_id
FROM asked a JOIN moved m USING (job_id)
RETURNING job_id
""",
    asked="json",
)


@dataclass(frozen=True, slots=True)
class TurnWanted:
    """A claimed job that wants its turn."""

    lease: Lease
    tenant: str
    conversation_id: str


@dataclass(frozen=True, slots=True)
class Turn:
    """That it is the job's turn; `messages` is what was said so far, the newest of it."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Behind:
    """That it is another job's turn first."""

    job_id: UUID


def take_turns(connection: Connection, worker: str, wanted: Sequence[TurnWanted]) -> dict[UUID, Turn | Behind]:
    """Take their turns for those of the jobs whose it is; leave out those that have another owner by now.

    Safe to repeat. It need not be durable before the intent that follows it is: the write-ahead log is in order.
    """
    leases = {"ids": [each.lease[0] for each in wanted], "fences": [each.lease[1] for each in wanted]}
    where = {"tenants": [each.tenant for each in wanted], "conversations": [each.conversation_id for each in wanted]}
    with transaction_on(connection):
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
        LOCK_CONVERSATIONS.run_plain(connection, leases | where)
        rows = TAKE_TURNS.run_plain(connection, leases | {"worker": worker})
    # Read after the commit: nobody else can add to it any more.
    return {row.id: Behind(row.ahead) if row.ahead != row.id else _turn(connection, row) for row in rows}


def next_turns(connection: Connection, conversations: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Ring]:
    """Return whom to ring for, by tenant and conversation: a held job whose turn it is now."""
    asked = {
        "tenants": [tenant for tenant, _ in conversations],
        "conversations": [name for _, name in conversations],
        "patience": RING_PATIENCE_SECONDS,
    }
    return {(row.tenant, row.conversation_id): _ring(row) for row in NEXT_TURNS.run(connection, asked)}


def append(connection: Connection, settlements: Sequence[Settlement]) -> set[UUID]:
    """Append what attempts have said to their conversations, in a transaction; return whose messages are there.

    A job's that is not among them has not the turn.
    """
    asked = [row for settlement in settlements for row in _messages(settlement)]
    return {row.job_id for row in APPEND.run_plain(connection, {"asked": json.dumps(asked, ensure_ascii=False)})}


def _turn(connection: Connection, row: Any) -> Turn:
    return Turn(messages_of(connection, row.tenant, row.conversation_id, limit=HISTORY_MESSAGES, size=HISTORY_BYTES))


def _messages(settlement: Settlement) -> list[dict[str, Any]]:
    tenant, conversation_id = settlement.conversation or ("", "")
    return [
        {
            "job_id": str(settlement.job_id),
            "tenant": tenant,
            "conversation_id": conversation_id,
            "ordinal": ordinal,
            "role": message.role,
            "content": message.content,
            "tool_calls": None
            if message.tool_calls is None
            else json.dumps(message.tool_calls, ensure_ascii=False, separators=(",", ":")),
            "tokens": message.tokens,
        }
        for ordinal, message in enumerate(settlement.messages, 1)
    ]


def _ring(row: Any) -> Ring:
    return Ring(row.id, row.action, row.queue, ahead(row.priority), row.traceparent, row.request_id, row.together)

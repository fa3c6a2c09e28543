"""What both sides read of conversations, and whose turn it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.conversation import Conversation, Message
from producer.ledger.engine import WAKE_CHANNEL
from producer.ledger.states import OPEN, State, in_sql

# What a turn is given of its conversation: the newest messages, so many or so many bytes of them.
HISTORY_MESSAGES = 1_000
HISTORY_BYTES = 8 << 20
WAITING_SHOWN = 1_000
# Whoever ends a turn rings for the next. Where nobody did, since a worker died in between, the relays look at the held
# jobs after so long.
LOOK_SECONDS = 20.0

# A turn goes to the open job that was accepted first. One that shall run later does not hold up the others until then;
# one in doubt does: whoever went on would not know what it may have done. To be joined to a conversation `c`.
FIRST_IN_LINE = f"""CROSS JOIN LATERAL (
    SELECT j.id FROM jobs j WHERE j.tenant = c.tenant AND j.conversation_id = c.id AND j.state IN ({in_sql(OPEN)})
      AND NOT (j.state = '{State.QUEUED}' AND j.due_at > clock_timestamp())
    ORDER BY j.id LIMIT 1
  ) first"""

CONVERSATION = text(f"""
SELECT c.id, c.tenant, c.created_at, h.id AS turn_of, h.state AS turn_state
FROM conversations c LEFT JOIN jobs h ON h.id = c.turn_of AND h.state IN ({in_sql(OPEN)})
WHERE c.tenant = :tenant AND c.id = :id
""")
WAITING = text(f"""
SELECT id FROM jobs
WHERE tenant = :tenant AND conversation_id = :id AND state = '{State.WAITING}' AND waiting_for = 'conversation'
ORDER BY id LIMIT :limit
""")
MESSAGES = text("""
SELECT role, content, tool_calls, tokens, seq, job_id, at FROM (
  SELECT *, sum(octet_length(content) + coalesce(octet_length(CAST(tool_calls AS text)), 0)) OVER (ORDER BY seq DESC)
    AS bytes
  FROM (
    SELECT * FROM messages WHERE tenant = :tenant AND conversation_id = :id ORDER BY seq DESC LIMIT :limit
  ) newest
) counted
WHERE bytes <= :bytes ORDER BY seq
""")

# Where a turn ended by other means than its attempt's: the next one is the relays' to ring for, at once.
WAKE_TURNS = text(f"""
UPDATE jobs n SET ring_at = clock_timestamp()
FROM (
  SELECT DISTINCT first.id
  FROM jobs ended JOIN conversations c ON c.tenant = ended.tenant AND c.id = ended.conversation_id
  {FIRST_IN_LINE}
  WHERE ended.id = ANY(:ids) AND NOT EXISTS (SELECT FROM jobs h WHERE h.id = c.turn_of AND h.state IN ({in_sql(OPEN)}))
) free
WHERE n.id = free.id AND n.state = '{State.WAITING}' AND n.waiting_for = 'conversation'
RETURNING pg_notify(:channel, '')
""")

# Held jobs whose time to look has come while another turn is first still: they go on waiting. `ring_at` as it was seen,
# so that whom somebody has rung for meanwhile is left alone.
PUT_OFF = text(f"""
WITH seen AS (
  SELECT j.id FROM unnest(CAST(:ids AS uuid[]), CAST(:ring_ats AS timestamptz[])) AS s(id, ring_at)
  JOIN jobs j ON j.id = s.id AND j.ring_at = s.ring_at
  JOIN conversations c ON c.tenant = j.tenant AND c.id = j.conversation_id
  {FIRST_IN_LINE}
  WHERE j.state = '{State.WAITING}' AND j.waiting_for = 'conversation'
    AND coalesce((SELECT h.id FROM jobs h WHERE h.id = c.turn_of AND h.state IN ({in_sql(OPEN)})), first.id) <> j.id
  ORDER BY j.id FOR UPDATE OF j SKIP LOCKED
)
UPDATE jobs j SET due_at = statement_timestamp() + make_interval(secs => :seconds),
  ring_at = statement_timestamp() + make_interval(secs => :seconds)
FROM seen WHERE j.id = seen.id
RETURNING j.id
""")


def wake_turns(connection: Connection, ended: Sequence[UUID]) -> None:
    """Have the relays ring for those whose turn it is now that these jobs ended; nothing where they were no turns."""
    if ended:
        connection.execute(WAKE_TURNS, {"ids": list(ended), "channel": WAKE_CHANNEL})


def put_off_turns(connection: Connection, held: Sequence[tuple[UUID, datetime]]) -> set[UUID]:
    """Have held jobs wait on where another turn is first still; return which.

    So one that waits for days, behind one in doubt, is not claimed and held anew all the time.

    Args:
        connection: In autocommit.
        held: Jobs that wait for their turn, each with its ``ring_at`` as it was read.
    """
    if not held:
        return set()
    ids, ring_ats = zip(*held, strict=True)
    asked = {"ids": list(ids), "ring_ats": list(ring_ats), "seconds": LOOK_SECONDS}
    return set(connection.execute(PUT_OFF, asked).scalars())


def conversation(connection: Connection, tenant: str, conversation_id: str, *, limit: int) -> Conversation | None:
    """Read a conversation with its newest messages; None where this tenant has none of this id."""
    asked = {"tenant": tenant, "id": conversation_id}
    row = connection.execute(CONVERSATION, asked).one_or_none()
    if row is None:
        return None
    waiting = connection.execute(WAITING, asked | {"limit": WAITING_SHOWN}).scalars()
    messages = messages_of(connection, tenant, conversation_id, limit=limit, size=HISTORY_BYTES * limit)
    # None is ever taken away, so the newest says how many there are: counting would be another moment's answer.
    length = messages[-1].seq if messages else 0
    return Conversation(
        id=row.id,
        tenant=row.tenant,
        created_at=row.created_at,
        turn_of=row.turn_of,
        turn_state=None if row.turn_state is None else State(row.turn_state),
        waiting=tuple(waiting),
        length=length or 0,
        messages=messages,
    )


def messages_of(
    connection: Connection, tenant: str, conversation_id: str, *, limit: int, size: int
) -> tuple[Message, ...]:
    """Read the newest messages of a conversation, in order: at most `limit`, and at most `size` bytes."""
    asked = {"tenant": tenant, "id": conversation_id, "limit": limit, "bytes": size}
    return tuple(Message(**row) for row in connection.execute(MESSAGES, asked).mappings())

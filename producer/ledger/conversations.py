"""What both sides read of conversations, and whose turn it is."""

from __future__ import annotations

from collections.abc import Sequence
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

# A turn goes to the open job that was accepted first. One that shall run later does not hold up the others until then;
# one in doubt does: whoever went on would not know what it may have done.
IN_LINE = f"""
  j.state IN ({in_sql(OPEN)}) AND NOT (j.state = '{State.QUEUED}' AND j.due_at > clock_timestamp())
"""

CONVERSATION = text(f"""
SELECT c.id, c.tenant, c.created_at, h.id AS turn_of
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
  CROSS JOIN LATERAL (
    SELECT j.id FROM jobs j WHERE j.tenant = c.tenant AND j.conversation_id = c.id AND {IN_LINE} ORDER BY j.id LIMIT 1
  ) first
  WHERE ended.id = ANY(:ids) AND NOT EXISTS (SELECT FROM jobs h WHERE h.id = c.turn_of AND h.state IN ({in_sql(OPEN)}))
) free
WHERE n.id = free.id AND n.state = '{State.WAITING}' AND n.waiting_for = 'conversation'
RETURNING pg_notify(:channel, '')
""")


def wake_turns(connection: Connection, ended: Sequence[UUID]) -> None:
    """Have the relays ring for those whose turn it is now that these jobs ended; nothing where they were no turns."""
    if ended:
        connection.execute(WAKE_TURNS, {"ids": list(ended), "channel": WAKE_CHANNEL})


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
    return Conversation(**row._mapping, waiting=tuple(waiting), length=length or 0, messages=messages)  # noqa: SLF001


def messages_of(
    connection: Connection, tenant: str, conversation_id: str, *, limit: int, size: int
) -> tuple[Message, ...]:
    """Read the newest messages of a conversation, in order: at most `limit`, and at most `size` bytes."""
    asked = {"tenant": tenant, "id": conversation_id, "limit": limit, "bytes": size}
    return tuple(Message(**row) for row in connection.execute(MESSAGES, asked).mappings())

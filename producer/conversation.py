"""A conversation as it is read, and what may be said in one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID

from producer.canonical import BYTES_LIMIT, check_text, shown
from producer.envelope import checked_text
from producer.errors import InvalidRequest
from producer.ledger.states import State

Role = Literal["system", "user", "assistant", "tool"]

ROLES: tuple[Role, ...] = get_args(Role)
TOKENS_LIMIT = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: ``system`` | ``user`` | ``assistant`` | ``tool``.
        content: Its text; empty where it only calls tools.
        tool_calls: As the model's server has them, plain JSON; None where it calls none.
        tokens: What it cost the model to write; None is unknown, which is not zero.
        seq: Counts from 1 without gaps within its conversation; None until it is committed, as for the rest.
        job_id: The turn that said it.
        at: When that was committed.
    """

    role: Role
    content: str
    tool_calls: Any = None
    tokens: int | None = None
    seq: int | None = None
    job_id: UUID | None = None
    at: datetime | None = None

    @property
    def size(self) -> int:
        """How many bytes it has, tool calls included."""
        calls = "" if self.tool_calls is None else json.dumps(self.tool_calls, ensure_ascii=False)
        return len(self.content.encode()) + len(calls.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation as it stood when it was read.

    Attributes:
        turn_of: The job whose turn it is, or was left in doubt; None where nobody has it.
        turn_state: How that job stands. Where it is ``in_doubt``, the others wait until that is resolved.
        waiting: Jobs that wait for their turn, in its order.
        length: How many messages it has.
        messages: The newest of them, in order.
    """

    id: str
    tenant: str
    created_at: datetime
    turn_of: UUID | None
    turn_state: State | None
    waiting: tuple[UUID, ...]
    length: int
    messages: tuple[Message, ...]


def checked_message(role: Any, content: Any, *, tool_calls: Any = None, tokens: Any = None) -> Message:
    """Return a message that the ledger can hold.

    Raises:
        InvalidRequest: If it is none: an unknown role, no text, too large, characters that Postgres cannot store.
    """
    if role not in ROLES:
        raise InvalidRequest("role", f"{shown(role)} is not {', '.join(ROLES[:-1])} or {ROLES[-1]}")
    if not isinstance(content, str):
        raise InvalidRequest("content", f"must be text, not {type(content).__name__}")
    check_text(content, "content")
    if len(content.encode()) > BYTES_LIMIT:
        raise InvalidRequest(
            "content", f"is larger than {BYTES_LIMIT:,} bytes; store it elsewhere and pass a reference"
        )
    if tool_calls is not None:  # as they are now: whoever says them may go on changing them
        tool_calls = json.loads(checked_text(tool_calls, "tool_calls"))
    if tokens is not None and not (type(tokens) is int and 0 <= tokens < TOKENS_LIMIT):
        raise InvalidRequest("tokens", f"{shown(tokens)} is no count of tokens")
    return Message(role=role, content=content, tool_calls=tool_calls, tokens=tokens)

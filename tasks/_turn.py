"""One turn of a conversation, as an action sees it: what was said before, and what it says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from producer.conversation import Message, Role, checked_message
from producer.errors import InvalidRequest

# They are written with the outcome, in one statement; and the next turn could not be given more.
SAID_LIMIT = 1_000
SAID_BYTES_LIMIT = 8 << 20


@dataclass(slots=True)
class Turn:
    """An action's own conversation, while it has the turn: nobody else adds to it meanwhile.

    Attributes:
        id: The conversation's.
        messages: What was said before, in order: the newest 1,000 messages, or 8 MiB of them.
        said: What this attempt has appended so far.
        said_bytes: How large that is.
    """

    id: str
    messages: tuple[Message, ...] = ()
    said: list[Message] = field(default_factory=list)
    said_bytes: int = 0

    def append(self, role: Role, content: str, *, tool_calls: Any = None, tokens: int | None = None) -> None:
        """Say something. It is there with the attempt's outcome if that is a success, and never otherwise.

        Args:
            role: ``system`` | ``user`` | ``assistant`` | ``tool``.
            content: Its text, up to 1 MiB.
            tool_calls: Plain JSON, as the model's server has them; None where there are none.
            tokens: What it cost the model to write; None is unknown.

        Raises:
            InvalidRequest: If it cannot be stored, or is more than an attempt may say: 1,000 messages, 8 MiB.
        """
        if len(self.said) >= SAID_LIMIT:
            raise InvalidRequest("messages", f"are more than {SAID_LIMIT:,} of one attempt")
        message = checked_message(role, content, tool_calls=tool_calls, tokens=tokens)
        size = self.said_bytes + message.size
        if size > SAID_BYTES_LIMIT:
            raise InvalidRequest("messages", f"are more than {SAID_BYTES_LIMIT:,} bytes of one attempt")
        self.said.append(message)
        self.said_bytes = size

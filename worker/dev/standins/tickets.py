"""The demo's tickets, as the stand-ins need them: to know which orders there are, and to plan faults."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

TICKETS = Path(__file__).parent.parent / "tickets.jsonl"


@dataclass(frozen=True, slots=True)
class Ticket:
    """One customer's message.

    Attributes:
        id: ``T-1001``; unique in its file.
        sender: The customer's address, as written.
        name: The customer's name, as written.
        subject: May be as little as a question mark.
        body: Plain text or HTML, in any language.
        order: ``A-2041``; None where the customer names none. The order need not exist.
        received_at: With its time zone.
    """

    id: str
    sender: str
    name: str
    subject: str
    body: str
    order: str | None
    received_at: datetime

    @property
    def text(self) -> str:
        """What there is to read."""
        return f"{self.subject}\n{self.body}"


def read_tickets(path: Path = TICKETS) -> list[Ticket]:
    """Read a file of one JSON ticket a line, in its order.

    Raises:
        ValueError: If there is none, or a line is not a ticket; the message names the line.
    """
    # Split at newlines only: splitlines would also cut a ticket in two at a U+2028 in somebody's message.
    lines = path.read_bytes().split(b"\n")
    tickets = [_ticket(line, f"{path.name}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not tickets:
        raise ValueError(f"{path.name} holds no ticket")
    return tickets


def _ticket(line: bytes, place: str) -> Ticket:
    try:
        row = json.loads(line)
        return Ticket(
            id=row["id"],
            sender=row["from"],
            name=row["name"],
            subject=row["subject"],
            body=row["body"],
            order=row["order"],
            received_at=datetime.fromisoformat(row["received_at"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{place} is not a ticket ({error!r}); see {TICKETS} for the shape") from error

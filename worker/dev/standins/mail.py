"""An SMTP server that keeps what it accepts and passes nothing on.

Its temporary refusals come before a message is accepted, so a refused message provably had no effect: a 421
at the recipient, a 451 at the end of the data. A lost answer is the fault that leaves doubt, and the default
plan has none.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import socket
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from worker.dev.standins.faults import Fault, Faults, Kind, Service
from worker.dev.standins.http_server import LOOPBACK

# aiosmtpd's default asks the name service, and greets with this machine's name.
HOST_NAME = "mail.stand-in.example"


@dataclass(frozen=True, slots=True)
class Message:
    """One accepted message, as received.

    Attributes:
        message_id: Empty where the sender gave none.
        sender: The From header.
        to: The To header.
        subject: Decoded.
        body: The plain text, or the HTML of a message that has only that.
    """

    message_id: str
    sender: str
    to: str
    subject: str
    body: str


class Mailbox:
    """The accepted messages. Safe to share among threads."""

    def __init__(self, log: Path | None = None) -> None:
        """Keep messages in memory and, given a path, add each to that file as a line of JSON."""
        self._log = log
        self._lock = threading.Lock()
        self._messages: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        """The messages accepted so far, each one an effect; a copy."""
        with self._lock:
            return list(self._messages)

    @property
    def by_message_id(self) -> Counter[str]:
        """How often each Message-ID was accepted; more than once is a mail sent twice."""
        return Counter(message.message_id for message in self.messages)

    @property
    def by_recipient_and_subject(self) -> Counter[tuple[str, str]]:
        """How often each recipient was sent each subject: finds a mail sent twice under two Message-IDs."""
        return Counter((message.to, message.subject) for message in self.messages)

    def accept(self, content: bytes) -> None:
        """Keep a message: on disk first, so that the file never lacks what the counts show."""
        message = _parse(content)
        with self._lock:
            if self._log is not None:
                with self._log.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(asdict(message), ensure_ascii=False) + "\n")
            self._messages.append(message)


@contextmanager
def serving_mail(mailbox: Mailbox, faults: Faults) -> Iterator[int]:
    """Serve SMTP on a free port of the loopback, in a thread, and yield the port. Stopping cuts it off."""
    with socket.create_server((LOOPBACK, 0)) as listening:
        controller = _Controller(_Handler(mailbox, faults), listening)
        controller.start()
        try:
            yield controller.port
        finally:
            controller.stop()


class _Controller(Controller):
    def __init__(self, handler: _Handler, listening: socket.socket) -> None:
        self._listening = listening
        self._sessions: WeakSet[SMTP] = WeakSet()
        port = listening.getsockname()[1]
        super().__init__(handler, LOOPBACK, port, server_hostname=HOST_NAME, ident="surefoot stand-in")

    def factory(self) -> SMTP:
        session = SMTP(self.handler, **self.SMTP_kwargs)
        self._sessions.add(session)
        return session

    def _create_server(self) -> Coroutine[Any, Any, asyncio.Server]:
        # A socket bound beforehand: given port 0, the base class would knock at port 0 to see if it is up.
        return self.loop.create_server(self._factory_invoker, sock=self._listening)

    def cancel_tasks(self, stop_loop: bool = True) -> None:  # noqa: FBT001, FBT002  the base class's signature
        # From Python 3.12 on a server counts as closed only when its connections are, idle ones too.
        for session in self._sessions:
            _cut(session)
        super().cancel_tasks(stop_loop)


class _Handler:
    """Hooks of aiosmtpd, named by it; a returned text is the reply."""

    def __init__(self, mailbox: Mailbox, faults: Faults) -> None:
        self._mailbox, self._faults = mailbox, faults
        self._at_end_of_data: WeakKeyDictionary[Envelope, Fault] = WeakKeyDictionary()

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        fault = self._faults.next(Service.MAIL, address.lower())
        if fault is not None and fault.kind is Kind.SMTP_421:
            # After the reply: a server that says 421 closes the channel (RFC 5321, 3.8).
            asyncio.get_running_loop().call_soon(_close, server)
            return "421 4.3.2 Service not available, try again later (injected)"
        if fault is not None:
            self._at_end_of_data[envelope] = fault
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        fault = self._at_end_of_data.pop(envelope, None)
        if fault is not None and fault.kind is Kind.SMTP_451:
            return "451 4.3.0 Local error, try again later (injected)"
        self._mailbox.accept(envelope.original_content or b"")
        if fault is not None:
            _cut(server)
        return "250 2.0.0 Kept by a stand-in; passed on to nobody"


def _close(server: SMTP) -> None:
    if server.transport is not None:
        server.transport.close()


def _cut(server: SMTP) -> None:
    if isinstance(server.transport, asyncio.WriteTransport):
        server.transport.abort()


def _parse(content: bytes) -> Message:
    parsed = email.message_from_bytes(content, policy=email.policy.default)
    text = parsed.get_body(("plain", "html")) if isinstance(parsed, EmailMessage) else None
    return Message(
        message_id=str(parsed.get("Message-ID", "")).strip(),
        sender=str(parsed.get("From", "")),
        to=str(parsed.get("To", "")),
        subject=str(parsed.get("Subject", "")),
        body="" if text is None else str(text.get_content()),
    )

"""Stand-ins for the services a support desk talks to: a model, an order service, a mail server.

They let the demo and the tests run without an account or a network: real sockets, real protocols, faults
on purpose, and a record of every effect, so that what happened twice would show.
They listen on the loopback only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from worker.dev.standins.faults import Fault, Faults, Injected, Kind, Plan, Service
from worker.dev.standins.http_server import LOOPBACK, serving
from worker.dev.standins.llm import MODEL, LlmCall, LlmStandIn
from worker.dev.standins.mail import Mailbox, Message, serving_mail
from worker.dev.standins.orders import OrdersStandIn, Refund, refund_unit
from worker.dev.standins.plan import default_plan
from worker.dev.standins.tickets import TICKETS, Ticket, read_tickets

__all__ = [
    "MODEL",
    "TICKETS",
    "Fault",
    "Faults",
    "Injected",
    "Kind",
    "LlmCall",
    "LlmStandIn",
    "Mailbox",
    "Message",
    "OrdersStandIn",
    "Plan",
    "Refund",
    "Service",
    "StandIns",
    "Ticket",
    "default_plan",
    "read_tickets",
    "refund_unit",
    "stand_ins",
]


@dataclass(frozen=True, slots=True)
class StandIns:
    """The running stand-ins: where they are, and what has happened at them.

    Attributes:
        llm_url: The base address for the OpenAI SDK; ends in ``/v1``.
        orders_url: The order service's base address, without a final slash.
        smtp_host: The mail server's address.
        smtp_port: Plain SMTP, no login.
        llm: Its ``calls`` are those answered.
        orders: Its ``refunds`` are those paid, ``replays`` those only answered, ``lookups`` counts by order.
        mail: Its ``messages`` are those accepted; counted ``by_message_id`` and ``by_recipient_and_subject``.
        faults: Its ``plan`` is what may go wrong, ``injected`` what has.
    """

    llm_url: str
    orders_url: str
    smtp_host: str
    smtp_port: int
    llm: LlmStandIn
    orders: OrdersStandIn
    mail: Mailbox
    faults: Faults


@contextmanager
def stand_ins(
    *, seed: int = 7, faults: bool | Plan = True, tickets: Path | None = None, mail_log: Path | None = None
) -> Iterator[StandIns]:
    """Start all stand-ins on free ports of the loopback, and stop them within a second at the end.

    Args:
        seed: Of the default plan of faults.
        faults: True for the default plan, False for none, or a plan of one's own.
        tickets: The desk's tickets, from which orders and plan are made; None takes those of the demo.
        mail_log: A file that gets every accepted message as a line of JSON; None keeps them in memory only.

    Raises:
        ValueError: If a line of `tickets` is not a ticket, or a plan asks a service for the impossible.
    """
    desk = read_tickets(TICKETS if tickets is None else tickets)
    plan = (default_plan(desk, seed=seed) if faults else {}) if isinstance(faults, bool) else faults
    injector, mailbox = Faults(plan), Mailbox(mail_log)
    llm, orders = LlmStandIn(), OrdersStandIn(desk)
    with ExitStack() as running:
        yield StandIns(
            llm_url=running.enter_context(serving(llm, injector)) + "/v1",
            orders_url=running.enter_context(serving(orders, injector)),
            smtp_host=LOOPBACK,
            smtp_port=running.enter_context(serving_mail(mailbox, injector)),
            llm=llm,
            orders=orders,
            mail=mailbox,
            faults=injector,
        )

"""The default plan: about one ticket in three meets a fault, and every kind of fault is met by some ticket.

It never loses an answer of the mail server, so what the demo sends is provably sent once. It does lose the
answer to a refund, where the idempotency key is what keeps the money from going out twice.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

from worker.dev.standins.faults import Fault, Kind, Plan, Service
from worker.dev.standins.orders import exists, refund_unit
from worker.dev.standins.rules import Category, read
from worker.dev.standins.tickets import Ticket

TICKETS_PER_FAULT = 3

_Unit = tuple[Service, str]


def default_plan(tickets: Sequence[Ticket], *, seed: int) -> Plan:
    """Choose the tickets that meet faults. Pure: the same tickets and seed give the same plan.

    Args:
        tickets: What the desk will work through. With fewer than 36 the last kinds of the menu are left out.
        seed: Any number; another one strikes other tickets.
    """
    untouched = list(tickets)
    random.Random(seed).shuffle(untouched)  # noqa: S311  a plan is to be repeated, not to be secret
    plan: dict[_Unit, tuple[Fault, ...]] = {}
    wanted = round(len(untouched) / TICKETS_PER_FAULT)
    for unit_of, faults in itertools.islice(itertools.cycle(_MENU), wanted):
        struck = next((t for t in untouched if (unit := unit_of(t)) is not None and unit not in plan), None)
        if struck is not None and (unit := unit_of(struck)) is not None:
            plan[unit] = faults
            untouched.remove(struck)
    return plan


def _chat(ticket: Ticket) -> _Unit | None:
    return Service.LLM, ticket.id


def _lookup(ticket: Ticket) -> _Unit | None:
    return (Service.ORDERS, ticket.order) if ticket.order is not None and exists(ticket.order) else None


def _refund(ticket: Ticket) -> _Unit | None:
    # The agent decides on refunds; a ticket that the rules read as one is where it is likely to.
    wants_one = ticket.order is not None and exists(ticket.order) and read(ticket.text).category is Category.REFUND
    return (Service.ORDERS, refund_unit(ticket.order)) if ticket.order is not None and wants_one else None


def _mail(ticket: Ticket) -> _Unit | None:
    # Spam gets no answer, so a fault on its way out would never be met.
    return None if read(ticket.text).category is Category.SPAM else (Service.MAIL, ticket.sender.lower())


# The choosiest first: the kinds that any ticket can meet take what is left.
_MENU: tuple[tuple[Callable[[Ticket], _Unit | None], tuple[Fault, ...]], ...] = (
    (_refund, (Fault(Kind.LOST_ANSWER),)),
    (_lookup, (Fault(Kind.TIMEOUT),)),
    (_lookup, (Fault(Kind.RATE_LIMIT),)),
    (_lookup, (Fault(Kind.UNAVAILABLE), Fault(Kind.UNAVAILABLE))),
    (_lookup, (Fault(Kind.RESET),)),
    (_mail, (Fault(Kind.SMTP_421),)),
    (_mail, (Fault(Kind.SMTP_451), Fault(Kind.SMTP_451))),
    (_chat, (Fault(Kind.TIMEOUT),)),
    (_chat, (Fault(Kind.RATE_LIMIT),)),
    (_chat, (Fault(Kind.RATE_LIMIT, retry_after_seconds=0.35),)),
    (_chat, (Fault(Kind.UNAVAILABLE), Fault(Kind.UNAVAILABLE))),
    (_chat, (Fault(Kind.RESET),)),
)

"""The shop's order service: looks orders up, and pays refunds back once per idempotency key.

Orders are made from the tickets, always the same ones, and an order is never paid back more than it cost.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from worker.dev.standins.faults import Service
from worker.dev.standins.http_server import Answer, Request
from worker.dev.standins.rules import Category, read
from worker.dev.standins.tickets import Ticket

NOBODYS_ORDERS = "A-9"  # numbers never given out, so that a customer can get one wrong
PROBLEM = {"Content-Type": "application/problem+json"}
CENTS = 100

_GOODS = (
    "desk lamp",
    "kettle",
    "backpack",
    "headphones",
    "storage box",
    "curtain",
    "mug",
    "garden chair",
    "teapot",
)
_CARRIERS = ("parcel van", "letter post", "bicycle courier")
_STATUS = {
    Category.DELIVERY: "in_transit",
    Category.CANCELLATION: "processing",
    Category.ADDRESS_CHANGE: "processing",
}
_SAYS = "This is a stand-in for a shop's order service. Nothing is sold, shipped or paid back.\n"


@dataclass(frozen=True, slots=True)
class Refund:
    """One refund that was paid.

    Attributes:
        id: The order service's own.
        order: What was paid back.
        amount: In the order's currency.
        reason: As given by the caller.
        idempotency_key: As given by the caller.
    """

    id: str
    order: str
    amount: float
    reason: str
    idempotency_key: str


def exists(order_id: str) -> bool:
    """Whether a ticket that names this order names one of ours."""
    return not order_id.startswith(NOBODYS_ORDERS)


def refund_unit(order_id: str) -> str:
    """What a fault plan calls the refunds of an order; the bare id is its look-ups."""
    return f"refund:{order_id}"


class OrdersStandIn:
    """Answers for the order service; see `serving` for the server around it."""

    service = Service.ORDERS

    def __init__(self, tickets: Iterable[Ticket]) -> None:
        named = {ticket.order: ticket for ticket in tickets if ticket.order is not None and exists(ticket.order)}
        self._orders = {order_id: _order(order_id, ticket) for order_id, ticket in named.items()}
        self._lock = threading.Lock()
        self._lookups: Counter[str] = Counter()
        self._refunds: dict[str, tuple[Refund, Any]] = {}
        self._replays = 0

    @property
    def lookups(self) -> Counter[str]:
        """How often each order was looked up and found; a copy."""
        with self._lock:
            return self._lookups.copy()

    @property
    def refunds(self) -> list[Refund]:
        """The refunds paid so far, each one an effect; a copy."""
        with self._lock:
            return [refund for refund, _ in self._refunds.values()]

    @property
    def replays(self) -> int:
        """How often a refund was asked for again under its key, and answered without paying."""
        with self._lock:
            return self._replays

    def unit_of(self, request: Request) -> str | None:
        """The order's id for a look-up, `refund_unit` of it for a refund."""
        if request.path.startswith("/orders/"):
            return request.path.removeprefix("/orders/")
        asked = request.json() if request.path == "/refunds" else None
        return refund_unit(str(asked.get("order"))) if isinstance(asked, dict) else None

    def answer(self, request: Request) -> Answer:
        """Answer one request."""
        if (request.method, request.path) == ("GET", "/"):
            return Answer(200, _SAYS)
        if request.method == "GET" and request.path.startswith("/orders/"):
            return self._look_up(request.path.removeprefix("/orders/"))
        if (request.method, request.path) == ("POST", "/refunds"):
            return self._refund(request.headers.get("Idempotency-Key", ""), request.json())
        return self.refusal(404, f"{request.method} {request.path} is not served")

    def refusal(self, status: int, reason: str) -> Answer:
        """An error as RFC 9457 problem details."""
        return Answer(status, {"type": "about:blank", "status": status, "title": reason}, PROBLEM)

    def _look_up(self, order_id: str) -> Answer:
        order = self._orders.get(order_id)
        if order is None:
            return self.refusal(404, f"there is no order {order_id!r}")
        with self._lock:
            self._lookups[order_id] += 1
        return Answer(200, order)

    def _refund(self, key: str, asked: Any) -> Answer:
        if not key:
            return self.refusal(400, "a refund needs an Idempotency-Key header")
        # One lock for looking and paying: two requests with one key cannot both find it unused.
        with self._lock:
            if key not in self._refunds:
                return self._pay(key, asked)
            refund, first_asked = self._refunds[key]
            if asked != first_asked:
                return self.refusal(422, f"the Idempotency-Key {key!r} was used for another refund")
            self._replays += 1
            return Answer(200, _receipt(refund), {"Idempotent-Replayed": "true"})

    def _pay(self, key: str, asked: Any) -> Answer:
        if not _is_refund(asked):
            return self.refusal(422, 'a refund is {"order": "A-2041", "amount": 12.5, "reason": "…"}')
        order = self._orders.get(asked["order"])
        if order is None:
            return self.refusal(422, f"there is no order {asked['order']!r}")
        left = _cents(order["total"]) - sum(
            _cents(r.amount) for r, _ in self._refunds.values() if r.order == order["id"]
        )
        if _cents(asked["amount"]) > left:
            return self.refusal(422, f"at most {left / CENTS:.2f} of {order['id']} can still be paid back")
        refund_id = "R-" + hashlib.sha256(key.encode()).hexdigest()[:10]
        refund = Refund(refund_id, order["id"], asked["amount"], asked["reason"], key)
        self._refunds[key] = refund, asked
        return Answer(201, _receipt(refund))


def _receipt(refund: Refund) -> dict[str, Any]:
    return {"id": refund.id, "order": refund.order, "amount": refund.amount, "status": "paid"}


def _is_refund(asked: Any) -> bool:
    if not isinstance(asked, dict) or not all(isinstance(asked.get(name), str) for name in ("order", "reason")):
        return False
    amount = asked.get("amount")
    return isinstance(amount, int | float) and not isinstance(amount, bool) and 0 < amount < math.inf


def _cents(amount: float) -> int:
    return round(amount * CENTS)


def _order(order_id: str, ticket: Ticket) -> dict[str, Any]:
    """Make the order a ticket complains of: its number decides the goods, its ticket how far it has come."""
    dice = hashlib.sha256(order_id.encode()).digest()
    prices = [
        (_GOODS[dice[n] % len(_GOODS)], 1 + dice[n + 8] % 3, 900 + dice[n + 16] * 37) for n in range(1 + dice[3] % 3)
    ]
    status = _STATUS.get(read(ticket.text).category, "delivered")
    return {
        "id": order_id,
        "status": status,
        "items": [{"name": name, "quantity": n, "price": cents / CENTS} for name, n, cents in prices],
        "total": sum(n * cents for _, n, cents in prices) / CENTS,
        "currency": "EUR",
        "carrier": None if status == "processing" else _CARRIERS[dice[1] % len(_CARRIERS)],
        "eta": _eta(ticket.received_at, status, days=1 + dice[2] % 4),
    }


def _eta(received_at: datetime, status: str, *, days: int) -> str:
    # What was delivered was due before the complaint; the rest is still to come.
    return (received_at + timedelta(days=-days if status == "delivered" else days)).date().isoformat()

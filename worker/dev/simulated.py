"""The actions behind ``surefoot-worker simulate``: each fails in its own way."""

from __future__ import annotations

from typing import Any

import httpx
from typing_extensions import TypedDict

from tasks import Asked, Cause, Context, Dependency, Retry, Said, action, allow, deny, policy, require_approval, rule

QUOTES = Dependency(name="simulate quotes", fail_max=3, failure_rate=None, recovery_seconds=1.0)
SECONDS = 5.0
# In EUR, out of goodwill.
TRIFLE, FORTUNE = 100, 1_000


class Order(TypedDict):
    """An order as its service had it once; by now it says ``total`` where it said ``price``."""

    id: str
    price: float


class Quote(TypedDict):
    """A price, and who said it."""

    price: str
    said_by: str


@action("simulate.call", effect="pure", max_retries=10, retry_backoff=1)
def call(failures: int, ctx: Context) -> str:
    """Time out on the first attempts, then answer."""
    if ctx.attempt <= failures:
        raise Retry(f"the model timed out (attempt {ctx.attempt} of {failures} that fail)")
    return f"the answer, at attempt {ctx.attempt}"


@action("simulate.order", effect="pure", max_retries=1, retry_backoff=0.2)
async def order(url: str) -> Order:
    """Read an order from a service that answers in another shape than it used to."""
    return await _get(url)  # type: ignore[no-any-return]  # whatever it is, the worker holds it to the type


def from_the_list(order_id: str, cause: Cause) -> Quote:
    """Take the price from a list."""
    return Quote(price=f"the list's, for {order_id}", said_by=f"the list, since: {cause.rule}")


@action("simulate.quote", effect="pure", dependency=QUOTES, max_retries=0, one_call=True, fallback=from_the_list)
async def quote(url: str, order_id: str) -> Quote:
    """Ask a service for a price."""
    found = await _get(f"{url}/orders/{order_id}")
    return Quote(price=str(found["total"]), said_by="the service")


def what_it_costs(order: str, amount: float) -> dict[str, Any]:
    """Say what a gesture of goodwill would change, for whoever has to approve it."""
    return {"order": order, "paid back": f"{amount:.2f} EUR", "comes out of": "goodwill"}


@action("simulate.goodwill", effect="keyed", key_ttl=3_600, one_call=True, preview=what_it_costs)
async def goodwill(orders_url: str, order: str, amount: float, ctx: Context) -> str:
    """Pay a customer something back who has no right to it."""
    body = {"order": order, "amount": amount, "reason": "goodwill"}
    async with httpx.AsyncClient(trust_env=False, timeout=SECONDS) as client:
        headers = {"Idempotency-Key": ctx.downstream_key()}
        response = await client.post(f"{orders_url}/refunds", json=body, headers=headers)
    return str(response.raise_for_status().json()["id"])


@policy("simulate.goodwill")
def generous(asked: Asked) -> Said:
    """Have somebody look at what is more than a trifle."""
    if asked.params["amount"] < TRIFLE:
        return allow("a trifle")
    return require_approval(reason=f"{TRIFLE} EUR or more out of goodwill", roles=["team-lead"], expires_in=120)


rule("no-fortunes", "simulate.goodwill", deny("nobody gives so much away"), when={"params.amount": {">": FORTUNE}})


async def _get(url: str) -> Any:
    async with httpx.AsyncClient(trust_env=False, timeout=SECONDS) as client:
        response = await client.get(url)
    response.raise_for_status()
    return response.json()

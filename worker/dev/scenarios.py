"""What goes wrong out there, one scenario each: a few jobs on real servers, told event by event from the ledger.

Each ends by saying what it showed, and whether it did.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.text import Text
from sqlalchemy import text

from producer import render_approvals
from producer.job import Job
from producer.ledger.engine import open_engine, transaction_on
from producer.ledger.states import CLOSED, State
from worker.dev.simulate import tell
from worker.dev.simulated import QUOTES
from worker.dev.stage import Stage
from worker.dev.standins import MODEL, Fault, Kind, Plan, Service, StandIns, refund_unit

ORDER, PAID_BACK, LATE = "A-2041", "A-2042", "A-2043"
TIMED_OUT, LIMITED = "T-901", "T-902"
SOON_SECONDS, LOCKED_SECONDS = 0.5, 2.5
# Whatever machine this is, nothing here takes longer.
PATIENCE_SECONDS = 60.0
NOBODY = "http://127.0.0.1:1"
CUSTOMER: Mapping[str, Any] = {"user_id": "nora@example.com", "agent_id": "support-desk"}

FAULTS: Plan = {
    (Service.LLM, TIMED_OUT): (Fault(Kind.TIMEOUT), Fault(Kind.TIMEOUT)),
    (Service.LLM, LIMITED): (Fault(Kind.RATE_LIMIT, retry_after_seconds=1),),
    (Service.ORDERS, refund_unit(PAID_BACK)): (Fault(Kind.LOST_ANSWER),),
}


@dataclass(frozen=True, slots=True)
class Play:
    """Where a scenario plays; `run` makes its keys its own."""

    on: Stage
    services: StandIns
    console: Console
    run: str

    def ask(
        self, action: str, params: Mapping[str, Any], key: str, *, run_at: datetime | None = None, **who: Any
    ) -> Job:
        """Enqueue a job and say so; `who` asks is its user and its agent."""
        key = f"{self.run}-{key}"
        job = self.on.producer.enqueue(action, params, idempotency_key=key, run_at=run_at, **who)
        self.console.print(Text(f"{action} {job.id}  key {job.idempotency_key}  {job.outcome}", "bold"))
        return job

    def tell(self, job: Job) -> Job:
        """Tell what becomes of a job until it has ended."""
        tell(job, self.console)
        return job


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that goes wrong.

    Attributes:
        title: What it shows.
        shown: Plays it; returns whether it went as the title says.
    """

    title: str
    shown: Callable[[Play], bool]


def _llm_timeout(play: Play) -> bool:
    job = play.tell(play.ask("llm.chat", _chat(TIMED_OUT, timeout=0.5), "llm-timeout"))
    return job.state is State.SUCCEEDED and job.record.attempt == len(FAULTS[Service.LLM, TIMED_OUT]) + 1


def _repeat(play: Play) -> bool:
    body = {"order": PAID_BACK, "amount": 12.5, "reason": "arrived broken"}
    params: dict[str, Any] = {"method": "POST", "url": f"{play.services.orders_url}/refunds", "json": body}
    params |= {"key_header": "Idempotency-Key", "timeout": 2}
    first = play.ask("http.request", params, "refund")
    again = play.ask("http.request", params, "refund")
    play.tell(first)
    refunds = [refund for refund in play.services.orders.refunds if refund.order == PAID_BACK]
    play.console.print(f"asked for twice, its answer lost once: {len(refunds)} refund in the service's own books")
    return first.id == again.id and first.state is State.SUCCEEDED and len(refunds) == 1


def _rate_limit(play: Play) -> bool:
    job = play.tell(play.ask("llm.chat", _chat(LIMITED), "rate-limit"))
    return job.state is State.SUCCEEDED and job.record.attempt == 1


def _slow_database(play: Play) -> bool:
    due = datetime.now(UTC) + timedelta(seconds=SOON_SECONDS)
    job = play.ask("simulate.call", {"failures": 0}, "slow-database", run_at=due)
    with _locked(play):
        play.console.print(f"somebody keeps the table of events to himself for {LOCKED_SECONDS:g} s")
    play.tell(job)
    claimed = next(event for event in job.events if event.kind == "claimed")
    waited = (claimed.at - due).total_seconds()
    intents = [event for event in job.events if event.kind == "intended"]
    play.console.print(f"the worker waited for {waited:.1f} s, and did it once")
    return job.state is State.SUCCEEDED and len(intents) == 1 and waited > SOON_SECONDS


def _changed_api(play: Play) -> bool:
    job = play.tell(play.ask("simulate.order", {"url": f"{play.services.orders_url}/orders/{ORDER}"}, "changed-api"))
    return job.state is State.DEAD and "price" in (job.error or {})["message"]


def _breaker(play: Play) -> bool:
    down, up = {"url": NOBODY, "order_id": ORDER}, {"url": play.services.orders_url, "order_id": ORDER}
    for number in range(QUOTES.fail_max or 0):
        play.tell(play.ask("simulate.quote", down, f"quote-{number}"))
    play.console.print("the service is back, which nobody knows yet:")
    refused = play.tell(play.ask("simulate.quote", up, "quote-refused"))
    play.console.print(f"and {QUOTES.recovery_seconds:g} s later one call tries it:")
    recovered = _recovered(play, up)
    return str(refused.record.degraded_by).startswith("breaker") and recovered.state is State.SUCCEEDED


def _approval(play: Play) -> bool:
    approvals, lead = play.on.producer.approvals, "lead@example.com"
    play.on.producer.roles.grant("team-lead", lead, who="the demo")
    fortune = play.tell(play.ask("simulate.goodwill", _gift(play, 5_000.0), "fortune", **CUSTOMER))
    job = play.ask("simulate.goodwill", _gift(play, 250.0), "goodwill", **CUSTOMER)
    told = tell(job, play.console, until={State.AWAITING_APPROVAL} | CLOSED)
    paid = len(_gifts(play))
    for asked in approvals.of_job(job.id):
        play.console.print(render_approvals.approval(asked))
        play.console.print(f"meanwhile it takes no worker's place; {lead} says yes to the request with that digest:")
        approvals.approve(asked.id, digest=asked.digest, by=lead, reason="they have waited for long enough")
    tell(job, play.console, told=told)
    play.console.print(f"before the yes {paid} payments in the service's own books, after it {len(_gifts(play))}")
    return fortune.state is State.FAILED and job.state is State.SUCCEEDED and (paid, len(_gifts(play))) == (0, 1)


def _gift(play: Play, amount: float) -> dict[str, Any]:
    return {"orders_url": play.services.orders_url, "order": LATE, "amount": amount}


def _gifts(play: Play) -> list[str]:
    return [refund.id for refund in play.services.orders.refunds if refund.reason == "goodwill"]


def _recovered(play: Play, params: Mapping[str, Any]) -> Job:
    """Ask until one is let through; what the breaker refuses meanwhile is not told."""
    until, number = time.monotonic() + PATIENCE_SECONDS, 0
    while True:
        number += 1
        key = f"{play.run}-quote-again-{number}"
        job = play.on.producer.enqueue("simulate.quote", params, idempotency_key=key).wait(PATIENCE_SECONDS)
        if job.state is State.SUCCEEDED or time.monotonic() > until:
            return play.tell(job)
        time.sleep(QUOTES.recovery_seconds / 4)


SCENARIOS: Mapping[str, Scenario] = {
    "llm-timeout": Scenario("a model that does not answer in time is asked again", _llm_timeout),
    "repeat": Scenario("one key is one effect, whoever asks twice and whatever answer is lost", _repeat),
    "rate-limit": Scenario("a server that asks for patience is given it, and no attempt is spent", _rate_limit),
    "slow-database": Scenario("a database that keeps everybody waiting costs time, and nothing else", _slow_database),
    "changed-api": Scenario("an answer in another shape is refused in words, and not passed on", _changed_api),
    "breaker": Scenario("a service that is down is left alone, a fallback stands in, and it is tried again", _breaker),
    "approval": Scenario("what a policy denies is not done, and what needs a person waits for one", _approval),
}


def play_all(names: Iterable[str], play: Play) -> bool:
    """Play scenarios one after another; return whether each showed what it should."""
    went = True
    for name in names:
        scenario = SCENARIOS[name]
        play.console.print(Text(f"\n── {name}: {scenario.title}", "bold cyan"))
        shown = scenario.shown(play)
        play.console.print(Text(f"{name}: {'as it should be' if shown else 'NOT AS IT SHOULD BE'}", "bold"))
        went = went and shown
    return went


def _chat(ticket: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": f"{ticket}: where is my parcel?"}], **more}


@contextmanager
def _locked(play: Play) -> Iterator[None]:
    """Have somebody keep the table of events to himself, from before the block until after it."""
    engine = open_engine(play.on.servers.database_url, connections=1, name="surefoot-simulate")
    until = time.monotonic() + LOCKED_SECONDS
    with engine.connect() as connection, transaction_on(connection):
        connection.execute(text("LOCK TABLE events IN EXCLUSIVE MODE"))
        yield
        time.sleep(max(0.0, until - time.monotonic()))
    engine.dispose()

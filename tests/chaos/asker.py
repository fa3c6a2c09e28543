"""A process that asks for jobs, told by the harness which: a producer as another service has one.

    python -m tests.chaos.asker NAME

A line on standard input is {"folder": …, "call": 1, "action": …, "key": …, "params": …, "tenant": …, "within": false};
the answer on standard output is the second line of its history. A killed asker has left the first.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.exc import SQLAlchemyError

from producer import Producer, Settings
from producer.canonical import canonical_json
from producer.errors import RequestRefused, SurefootError
from producer.job import Job
from producer.ledger import single
from producer.ledger.accept import accept
from producer.ledger.engine import open_engine
from tests.chaos.agent import Agent
from tests.chaos.evidence import Call
from tests.chaos.evidence_folder import Appender
from tests.chaos.parking import prove_alive

agent = Agent()
producers: dict[str, Producer] = {}


def _parking_accept(connection: Any, envelopes: Any, **how: Any) -> Any:
    """Accept, and park before it and once it is committed."""
    agent.park("accept.before")
    answers = accept(connection, envelopes, **how)
    if agent.park("accept.committed"):
        prove_alive(connection)
    return answers


setattr(single, "accept", _parking_accept)  # noqa: B010  it takes whatever the other takes


def ask(order: dict[str, Any], process: str) -> Call:
    """Ask for one job; the history has a line before and one after."""
    fingerprint = hashlib.sha256(f"1\n{canonical_json(order['params'], where='params')}".encode()).hexdigest()
    call = Call(
        at=time.time(),
        process=process,
        op="invoke",
        call=order["call"],
        action=order["action"],
        key=order["key"],
        job_id=None,
        outcome=None,
        fingerprint=fingerprint,
        error=None,
    )
    with Appender(Path(order["folder"]), Call) as history:
        history.add(call)
        answered = _answered(order, call)
        history.add(answered)
    return answered


def _answered(order: dict[str, Any], call: Call) -> Call:
    try:
        job = _enqueue(_producer(order["tenant"]), order)
    except RequestRefused as error:
        return replace(call, at=time.time(), op="fail", error=f"{type(error).__name__}: {error}")
    except (SurefootError, SQLAlchemyError) as error:  # it may have been accepted
        return replace(call, at=time.time(), op="info", error=f"{type(error).__name__}: {error}")
    outcome: Literal["created", "replayed"] = "created" if job.outcome == "created" else "replayed"
    return replace(call, at=time.time(), op="ok", job_id=str(job.id), outcome=outcome)


def _producer(tenant: str) -> Producer:
    """Return the tenant's producer; there is one at a time, and its predecessor is closed."""
    if tenant not in producers:
        for each in producers.values():
            each.close()
        producers.clear()
        producers[tenant] = Producer(Settings.from_env(tenant=tenant))
    return producers[tenant]


def _enqueue(asking: Producer, order: dict[str, Any]) -> Job:
    request = {"action": order["action"], "params": order["params"], "idempotency_key": order["key"]}
    if not order["within"]:
        return asking.enqueue(**request)
    engine = open_engine(asking.settings.database_url, connections=1, name="surefoot-producer")
    try:
        with engine.connect().execution_options(isolation_level="READ COMMITTED") as own, own.begin():
            return asking.enqueue(**request, connection=own)
    finally:
        engine.dispose()


def main() -> None:
    """Ask until there is nothing more to ask."""
    answers, sys.stdout = sys.stdout, sys.stderr  # a producer's log goes to the standard output, and to our log here
    for line in sys.stdin:
        answered = ask(json.loads(line), sys.argv[1])
        answers.write(json.dumps({"op": answered.op, "job_id": answered.job_id, "error": answered.error}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

"""A process that asks for jobs, told by the harness which: a producer as another service has one.

    python -m tests.chaos.asker NAME

A line on standard input is an order: {"do": "ask", "folder": …, "tenant": …, "within": false, "requests": [{"call": 1,
"action": …, "key": …, "params": …, "deadline": seconds from now | null}]}, several of which are asked for as a batch;
{"do": "cancel", "folder": …, "call": 2, "job": …}; {"do": "schedule", "name": …, "action": …, "params": …, "every": 1};
{"do": "pause", "name": …}; {"do": "approve", "job": …}, what people are asked of a job, if anything. The answer on
standard output is {"op", "error", "job_ids"}, for a schedule {"next_tick"} in UTC seconds. A killed asker has left the
first lines of its history.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from producer import Producer, Settings
from producer.canonical import canonical_json
from producer.errors import RequestRefused, SurefootError
from producer.job import Job
from producer.ledger import single
from producer.ledger.accept import accept
from producer.ledger.engine import open_engine
from tests.chaos.agent import Agent
from tests.chaos.approver import APPROVER
from tests.chaos.defective import MUTANT
from tests.chaos.evidence import Call, Cancel
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
if MUTANT in os.environ:
    from tests.chaos.mutants.askers import mutate

    mutate(os.environ[MUTANT])


def obey(order: dict[str, Any], process: str) -> dict[str, Any]:
    """Do what the harness says; return the answer."""
    asking = _producer(order["tenant"])
    match order["do"]:
        case "ask":
            return ask(order, process)
        case "cancel":
            return cancel(order, process)
        case "approve":
            return approve(asking, order["job"])
        case "schedule":
            added = asking.schedules.add(order["name"], order["action"], order["params"], every=order["every"])
            return {"next_tick": added.next_tick.timestamp()}
        case _:
            asking.schedules.pause(order["name"])
            return {}


def ask(order: dict[str, Any], process: str) -> dict[str, Any]:
    """Ask for one job or several; the history has a line for each before, and one after."""
    calls = [_call(request, process) for request in order["requests"]]
    with Appender(Path(order["folder"]), Call) as history:
        for call in calls:
            history.add(call)
        answered = _answered(order, calls)
        for call in answered:
            history.add(call)
    return {"op": answered[0].op, "error": answered[0].error, "job_ids": [call.job_id for call in answered]}


def cancel(order: dict[str, Any], process: str) -> dict[str, Any]:
    """Have a job cancelled; there is a line before, and one after."""
    asked = Cancel(
        at=time.time(),
        process=process,
        op="invoke",
        call=order["call"],
        job_id=order["job"],
        answer=None,
        error=None,
    )
    with Appender(Path(order["folder"]), Cancel) as cancels:
        cancels.add(asked)
        answer = _producer(order["tenant"]).cancel(order["job"])
        cancels.add(replace(asked, at=time.time(), op="ok", answer=answer))
    return {"op": "ok", "error": None, "job_ids": []}


def approve(asking: Producer, job_id: str) -> dict[str, Any]:
    """Approve what is asked of a job, as the person who may."""
    asked = [each for each in asking.approvals.of_job(job_id) if each.state != "superseded"]
    for each in asked[-1:]:
        agent.park("approve.before")
        asking.approvals.approve(each.id, digest=each.digest, by=APPROVER, reason="it is only chaos")
        agent.park("approve.committed")
    return {"op": "ok", "error": None, "job_ids": []}


def _call(request: dict[str, Any], process: str) -> Call:
    fingerprint = hashlib.sha256(f"1\n{canonical_json(request['params'], where='params')}".encode()).hexdigest()
    return Call(
        at=time.time(),
        process=process,
        op="invoke",
        call=request["call"],
        action=request["action"],
        key=request["key"],
        job_id=None,
        outcome=None,
        fingerprint=fingerprint,
        error=None,
    )


def _answered(order: dict[str, Any], calls: Sequence[Call]) -> list[Call]:
    try:
        jobs = _enqueue(_producer(order["tenant"]), order)
    except RequestRefused as error:
        why = f"{type(error).__name__}: {error}"
        return [replace(call, at=time.time(), op="fail", error=why) for call in calls]
    except (SurefootError, SQLAlchemyError) as error:  # it may have been accepted
        why = f"{type(error).__name__}: {error}"
        return [replace(call, at=time.time(), op="info", error=why) for call in calls]
    return [
        replace(
            call,
            at=time.time(),
            op="ok",
            job_id=str(job.id),
            outcome="created" if job.outcome == "created" else "replayed",
        )
        for call, job in zip(calls, jobs, strict=True)
    ]


def _producer(tenant: str) -> Producer:
    """Return the tenant's producer; there is one at a time, and its predecessor is closed."""
    if tenant not in producers:
        for each in producers.values():
            each.close()
        producers.clear()
        producers[tenant] = Producer(Settings.from_env(tenant=tenant))
    return producers[tenant]


def _enqueue(asking: Producer, order: dict[str, Any]) -> list[Job]:
    requests = [_request(request) for request in order["requests"]]
    if not order["within"]:
        return [asking.enqueue(**requests[0])] if len(requests) == 1 else asking.enqueue_many(requests)
    engine = open_engine(asking.settings.database_url, connections=1, name="surefoot-producer")
    try:
        with engine.connect().execution_options(isolation_level="READ COMMITTED") as own, own.begin():
            return [asking.enqueue(**requests[0], connection=own)]
    finally:
        engine.dispose()


def _request(request: dict[str, Any]) -> dict[str, Any]:
    seconds = request.get("deadline")
    return {
        "action": request["action"],
        "params": request["params"],
        "idempotency_key": request["key"],
        "deadline": None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds),
    }


def main() -> None:
    """Obey until there are no more orders."""
    answers, sys.stdout = sys.stdout, sys.stderr  # a producer's log goes to the standard output, and to our log here
    for line in sys.stdin:
        answers.write(json.dumps(obey(json.loads(line), sys.argv[1])) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

"""``surefoot-worker simulate``: one job that fails a few times, told event by event from the ledger."""

from __future__ import annotations

import secrets
import time

from rich.console import Console
from rich.text import Text

from producer import render
from producer.job import Job
from producer.ledger.reads import Event
from producer.ledger.states import CLOSED, State
from worker.dev.stage import FOLDER, stage, worker

LOOK_SECONDS = 0.02


def run_simulation(failures: int, *, key: str | None = None) -> int:
    """Enqueue a job that fails `failures` times, twice with one key, and tell what happens as it happens.

    Returns:
        0 where it succeeded.

    Raises:
        SurefootError: If a server or the worker does not come up.
    """
    console = render.console()
    environment = {"SUREFOOT_ACTION_MODULES": "worker.dev.simulated"}
    with (
        stage(FOLDER / "demo", log=lambda line: console.print(Text(line, "dim"))) as on,
        worker(on, concurrency=1, environment=environment) as performing,
    ):
        performing.wait()
        key = key or f"simulate-{secrets.token_hex(4)}"
        params = {"failures": failures}
        job = on.producer.enqueue("simulate.call", params, idempotency_key=key, reasoning="to see a retry")
        console.print(f"\nenqueued {job.id}  idempotency key {key}  {job.outcome}")
        again = on.producer.enqueue("simulate.call", params, idempotency_key=key)
        console.print(f"enqueued again with the same key: {again.outcome}, job {again.id}\n")
        _tell(job, console)
        console.print(Text(f"\nresult: {job.result}" if job.state is State.SUCCEEDED else f"\n{job.state}", "bold"))
        console.print(f"history: .venv/bin/surefoot show {job.id}")
        return 0 if job.state is State.SUCCEEDED else 1


def _tell(job: Job, console: Console) -> None:
    told = 0
    while True:
        ended = job.refresh().state in CLOSED
        for event in job.events[told:]:
            console.print(_worded(event))
            told += 1
        if ended:
            return
        time.sleep(LOOK_SECONDS)


def _worded(event: Event) -> Text:
    data = event.data or {}
    at = (f"{event.at:%H:%M:%S.%f}"[:-3] + "  ", "dim")
    match event.kind:
        case "attempt_failed":
            said, style = f"attempt {event.attempt} failed: {data['error']['message']}", "yellow"
            said += f"\n{'':14}retrying in {data['delay']:.2f} s"
        case "succeeded":
            said, style = f"attempt {event.attempt} succeeded", "bold green"
        case "intended":
            said, style = f"attempt {event.attempt} begins; intent committed, effect class {data['effect']}", ""
        case "claimed":
            said, style = f"claimed by {event.worker}, fence {event.fence}", "dim"
        case _:
            said, style = event.kind.replace("_", " "), "dim"
    return Text.assemble(at, (said, style))
